-- Whose history stands under a merchant's plain name: the object that was the first to have it. An
-- object of the same name that comes later has a history of its own, under `name#uid`. Merchants
-- without a uid (the environment's, files written by hand) have no row, and nobody follows them.
CREATE TABLE merchant_owners (
    merchant TEXT PRIMARY KEY CHECK (length(merchant) BETWEEN 1 AND 320),
    uid      TEXT NOT NULL CHECK (length(uid) BETWEEN 1 AND 64),
    since    TIMESTAMPTZ NOT NULL
);
