// Go net/http and pgx, a commit per row. Run as
//
//	peer PORT DATABASE_URL                       callbacks only
//	peer payments PORT DATABASE_URL SAFARICOM    whole payments (payments.go)
//	peer safaricom PORT                          a fast stand-in for Safaricom (safaricom.go)
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"
)

const poolSize = "16"
const insert = `INSERT INTO peer_callbacks (transaction_id, by_token, body, body_sha256, source,
 received_at, last_received_at, next_attempt_at)
 VALUES ($1, true, $2, $3, '127.0.0.1', now(), now(), now())
 ON CONFLICT (transaction_id, body_sha256) WHERE by_token
 DO UPDATE SET copies = peer_callbacks.copies + 1`

func main() {
	switch os.Args[1] {
	case "payments":
		servePayments(os.Args[2], os.Args[3], os.Args[4])
	case "safaricom":
		serveSafaricom(os.Args[2])
	default:
		serveCallbacks()
	}
}

func serveCallbacks() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Args[2]+"?pool_max_conns="+poolSize)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /callback/{payment}", func(w http.ResponseWriter, r *http.Request) {
		transaction, body, ok := readCallback(w, r)
		if !ok {
			return
		}
		digest := sha256.Sum256(body)
		if _, err := pool.Exec(ctx, insert, transaction, body, digest[:]); err != nil {
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"ResultCode": 0, "ResultDesc": "Accepted"}`))
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

// The payment that a callback's path names, and its body; false when it was refused.
func readCallback(w http.ResponseWriter, r *http.Request) (int64, []byte, bool) {
	payment, err := strconv.ParseInt(r.PathValue("payment"), 10, 64)
	if err != nil {
		http.NotFound(w, r)
		return 0, nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !json.Valid(body) {
		http.Error(w, "bad body", http.StatusBadRequest)
		return 0, nil, false
	}
	return payment, body, true
}
