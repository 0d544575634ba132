"""What tests share: real servers, a merchant's endpoint, a running gateway, waiting."""
