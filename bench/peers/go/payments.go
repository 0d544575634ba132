// A whole payment as a careful service does it: intent, SENDING and outcome are committed one by
// one, the callback is stored before its 200, the webhook's attempt before it leaves.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

type initiate struct {
	Amount         string `json:"amount"`
	Phone          string `json:"phone"`
	WebhookURL     string `json:"webhook_url"`
	IdempotencyKey string `json:"idempotency_key"`
}

type payments struct {
	pool      *pgxpool.Pool
	client    *http.Client
	safaricom string
	self      string
	jobs      chan int64
}

const webhookWorkers = 32

func servePayments(port, databaseURL, safaricom string) {
	pool, err := pgxpool.New(context.Background(), databaseURL+"?pool_max_conns="+poolSize)
	if err != nil {
		log.Fatal(err)
	}
	service := &payments{pool, newHTTPClient(), safaricom, "http://127.0.0.1:" + port,
		make(chan int64, 100_000)}
	for range webhookWorkers {
		go service.work()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /initiate", service.initiate)
	mux.HandleFunc("POST /callback/{payment}", service.callback)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, mux))
}

func (it *payments) initiate(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	var asked initiate
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&asked); err != nil {
		http.Error(w, "bad body", http.StatusBadRequest)
		return
	}
	var id int64
	err := it.pool.QueryRow(ctx, `INSERT INTO peer_payments
 (merchant, idempotency_key, phone, amount, webhook_url, push_state, status, created_at)
 VALUES ('default', $1, $2, $3, $4, 'INTENT', 'PENDING', now())
 ON CONFLICT (merchant, idempotency_key) DO NOTHING RETURNING id`,
		asked.IdempotencyKey, asked.Phone, asked.Amount, asked.WebhookURL).Scan(&id)
	if err != nil {
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
		return
	}
	if _, err := it.pool.Exec(ctx, `UPDATE peer_payments SET push_state = 'SENDING'
 WHERE id = $1 AND push_state = 'INTENT'`, id); err != nil {
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
		return
	}
	checkoutID, err := it.push(ctx, id, asked)
	if err != nil {
		http.Error(w, "not sent", http.StatusBadGateway)
		return
	}
	if _, err := it.pool.Exec(ctx, `UPDATE peer_payments SET push_state = 'ACCEPTED',
 checkout_request_id = $2 WHERE id = $1`, id, checkoutID); err != nil {
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"transaction_id": "%d", "status": "PENDING"}`, id)
}

func (it *payments) push(ctx context.Context, id int64, asked initiate) (string, error) {
	body := fmt.Sprintf(`{"BusinessShortCode":174379,"Password":"bench","Timestamp":"%s",`+
		`"TransactionType":"CustomerPayBillOnline","Amount":%s,"PartyA":%s,"PartyB":174379,`+
		`"PhoneNumber":%s,"CallBackURL":"%s/callback/%d","AccountReference":"bench",`+
		`"TransactionDesc":"bench"}`, time.Now().Format("20060102150405"), asked.Amount,
		asked.Phone, asked.Phone, it.self, id)
	url := it.safaricom + "/mpesa/stkpush/v1/processrequest"
	request, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer bench-access-token-0123456789")
	response, err := it.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ CheckoutRequestID string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	return answer.CheckoutRequestID, nil
}

func (it *payments) callback(w http.ResponseWriter, r *http.Request) {
	payment, body, ok := readCallback(w, r)
	if !ok {
		return
	}
	var id int64
	err := it.pool.QueryRow(r.Context(), `INSERT INTO peer_inbox (payment_id, body, received_at)
 VALUES ($1, $2, now()) RETURNING id`, payment, body).Scan(&id)
	if err != nil {
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
		return
	}
	it.jobs <- id
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte(`{"ResultCode": 0, "ResultDesc": "Accepted"}`))
}

func (it *payments) work() {
	for id := range it.jobs {
		if err := it.applyAndTell(context.Background(), id); err != nil {
			log.Print(err)
		}
	}
}

func (it *payments) applyAndTell(ctx context.Context, inbox int64) error {
	var delivery, payment int64
	var url string
	// A real service parses the body first; the receipt is what it looks for.
	var body []byte
	if err := it.pool.QueryRow(ctx, "SELECT body FROM peer_inbox WHERE id = $1", inbox).
		Scan(&body); err != nil {
		return err
	}
	receipt, err := receiptIn(body)
	if err != nil {
		return err
	}
	err = it.pool.QueryRow(ctx, `WITH applied AS (UPDATE peer_inbox SET applied_at = now()
 WHERE id = $1 AND applied_at IS NULL RETURNING payment_id),
 ended AS (UPDATE peer_payments p SET status = 'COMPLETED', receipt = $2, finished_at = now()
 FROM applied WHERE p.id = applied.payment_id AND p.status = 'PENDING' RETURNING p.id, p.webhook_url)
 INSERT INTO peer_deliveries (payment_id, url, state) SELECT id, webhook_url, 'PENDING' FROM ended
 RETURNING id, payment_id, url`, inbox, receipt).Scan(&delivery, &payment, &url)
	if err != nil {
		return err
	}
	if _, err := it.pool.Exec(ctx, `UPDATE peer_deliveries SET attempts = attempts + 1
 WHERE id = $1 AND state = 'PENDING'`, delivery); err != nil {
		return err
	}
	if err := it.tell(url, payment, receipt); err != nil {
		return err
	}
	_, err = it.pool.Exec(ctx, "UPDATE peer_deliveries SET state = 'DELIVERED' WHERE id = $1", delivery)
	return err
}

func (it *payments) tell(url string, payment int64, receipt string) error {
	body := []byte(fmt.Sprintf(`{"type": "transaction.completed", "data": {"transaction_id": "%d",`+
		` "status": "COMPLETED", "receipt": "%s"}}`, payment, receipt))
	mac := hmac.New(sha256.New, []byte("bench"))
	mac.Write(body)
	request, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("webhook-signature", hex.EncodeToString(mac.Sum(nil)))
	response, err := it.client.Do(request)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, response.Body)
	return response.Body.Close()
}

func receiptIn(body []byte) (string, error) {
	var said struct {
		Body struct {
			StkCallback struct {
				CallbackMetadata struct {
					Item []struct {
						Name  string
						Value any
					}
				}
			} `json:"stkCallback"`
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return "", err
	}
	for _, item := range said.Body.StkCallback.CallbackMetadata.Item {
		if receipt, ok := item.Value.(string); ok && item.Name == "MpesaReceiptNumber" {
			return receipt, nil
		}
	}
	return "", fmt.Errorf("a callback without a receipt: %s", body)
}
