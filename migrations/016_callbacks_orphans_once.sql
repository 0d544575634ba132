-- Equal bodies of one orphan are one row. Also how orphans are found: there are few of them.
CREATE UNIQUE INDEX CONCURRENTLY callbacks_orphans ON callbacks (orphan_of, body_sha256)
    WHERE orphan_of IS NOT NULL;
