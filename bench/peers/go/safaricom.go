// A stand-in for Safaricom that costs little: a token, pushes that take 50 ms, and a callback of
// a paid prompt 100 ms after each. The product's own simulator is Python and would be the limit.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const pushTime = 50 * time.Millisecond
const pinTime = 100 * time.Millisecond

// The product believes this address behind the proxy that it trusts; peers ignore it.
const safaricomAddress = "196.201.214.200"

const callbackBody = `{"Body":{"stkCallback":{"MerchantRequestID":"%s","CheckoutRequestID":"%s",` +
	`"ResultCode":0,"ResultDesc":"The service request is processed successfully.",` +
	`"CallbackMetadata":{"Item":[{"Name":"Amount","Value":%s.00},` +
	`{"Name":"MpesaReceiptNumber","Value":"%s"},{"Name":"Balance"},` +
	`{"Name":"TransactionDate","Value":%s},{"Name":"PhoneNumber","Value":%s}]}}}}`

type push struct {
	Amount      json.Number
	PhoneNumber json.Number
	CallBackURL string
}

// How long callbacks took to be answered 200, and how many were not, since the last look.
type answers struct {
	sync.Mutex
	took   []float64
	failed int
}

func (it *answers) note(status int, took time.Duration) {
	it.Lock()
	defer it.Unlock()
	if status == http.StatusOK {
		it.took = append(it.took, took.Seconds())
	} else {
		it.failed++
	}
}

func (it *answers) take(w http.ResponseWriter, _ *http.Request) {
	it.Lock()
	defer it.Unlock()
	slices.Sort(it.took)
	quantile := func(share float64) float64 {
		if len(it.took) == 0 {
			return 0
		}
		return it.took[min(len(it.took)-1, int(float64(len(it.took))*share))]
	}
	fmt.Fprintf(w, `{"answered": %d, "failed": %d, "p50_s": %f, "p99_s": %f}`,
		len(it.took), it.failed, quantile(0.5), quantile(0.99))
	it.took, it.failed = nil, 0
}

func newHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 2048, 2048
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func serveSafaricom(port string) {
	var numbers atomic.Int64
	numbers.Store(time.Now().UnixNano() / 1000 % 100_000_000_000)
	client := newHTTPClient()
	seen := &answers{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /answers", seen.take)
	mux.HandleFunc("GET /oauth/v1/generate", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"bench-access-token-0123456789","expires_in":"3599"}`)
	})
	mux.HandleFunc("POST /mpesa/stkpush/v1/processrequest", func(w http.ResponseWriter, r *http.Request) {
		var asked push
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, "bad push", http.StatusBadRequest)
			return
		}
		number := numbers.Add(1)
		merchantID := fmt.Sprintf("29115-%d-1", number)
		checkoutID := fmt.Sprintf("ws_CO_%d", number)
		time.Sleep(pushTime)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"MerchantRequestID":"%s","CheckoutRequestID":"%s","ResponseCode":"0",`+
			`"ResponseDescription":"Success. Request accepted for processing",`+
			`"CustomerMessage":"Success. Request accepted for processing"}`, merchantID, checkoutID)
		body := fmt.Sprintf(callbackBody, merchantID, checkoutID, asked.Amount,
			receiptOf(number), time.Now().Format("20060102150405"), asked.PhoneNumber)
		time.AfterFunc(pinTime, func() { callBack(client, seen, asked.CallBackURL, body) })
	})
	mux.HandleFunc("POST /mpesa/stkpushquery/v1/query", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"requestId":"bench","errorCode":"500.001.1001",`+
			`"errorMessage":"The transaction is being processed"}`)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, mux))
}

// Ten letters and digits, as receipts are.
func receiptOf(number int64) string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	receipt := []byte("S000000000")
	for at := len(receipt) - 1; at > 0; at-- {
		receipt[at] = letters[number%36]
		number /= 36
	}
	return string(receipt)
}

func callBack(client *http.Client, seen *answers, url string, body string) {
	request, err := http.NewRequest("POST", url, bytes.NewReader([]byte(body)))
	if err != nil {
		log.Print(err)
		return
	}
	request.Header.Set("Content-Type", "application/json;charset=UTF-8")
	request.Header.Set("X-Forwarded-For", safaricomAddress)
	started := time.Now()
	response, err := client.Do(request)
	if err != nil {
		seen.note(0, 0)
		log.Print(err)
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	seen.note(response.StatusCode, time.Since(started))
}
