"""Networks that no webhook may reach, and addresses inside and outside of them."""

from ipaddress import IPv4Network, IPv6Network

from hypothesis import strategies as st

# Written out here once more, after the IANA special-purpose registries, so that a line that is lost
# in the code is missed.
DENIED_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
DENIED_V6 = [
    IPv6Network(text)
    for text in (
        "::/3",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "4000::/2",
        "5f00::/16",
        "8000::/1",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]
inner_v4 = st.sampled_from(DENIED_V4).flatmap(lambda it: st.ip_addresses(network=it))
inner_v6 = st.sampled_from(DENIED_V6).flatmap(lambda it: st.ip_addresses(network=it))
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6) | st.ip_addresses(network="2000::/3")
