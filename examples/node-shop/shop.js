// A small shop that takes M-Pesa by mpesa-gateway: Node.js 18 or later, no packages, one file.
//
// What to copy: `send` (one key per attempt, repeated until an answer comes), `verifyWebhook`, and
// `take` (a webhook and its id, stored in one step).
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const { setTimeout: sleep } = require("node:timers/promises");

const GATEWAY = process.env.GATEWAY_URL ?? "http://localhost:8080";
const KEY = process.env.GATEWAY_KEY ?? "dev-key-for-this-machine-only";
const SECRET = process.env.WEBHOOK_SECRET ?? "whsec_ZGV2LXNlY3JldC1mb3ItdGhpcy1tYWNoaW5lLW9ubHk=";
// Empty: the endpoint that the merchant has at the gateway.
const WEBHOOK_URL = process.env.WEBHOOK_URL;
const PORT = Number(process.env.PORT ?? 3000);
const DATABASE = process.env.DATABASE ?? "shop.json";

// Payments by their idempotency key, and the ids of webhooks that were taken. A real shop has a
// database; what matters is that both are in it, and that a webhook and its id are one transaction.
let data = { payments: {}, seen: {} };

function save() {
  const next = `${DATABASE}.next`;
  const file = fs.openSync(next, "w");
  fs.writeSync(file, JSON.stringify(data));
  fs.fsyncSync(file);
  fs.closeSync(file);
  fs.renameSync(next, DATABASE);
}

function verifyWebhook(secret, headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]{1,12}$/.test(timestamp)) {
    throw new Error("webhook-timestamp is missing or not a number");
  }
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) {
    throw new Error("the webhook is not from the last five minutes");
  }
  const key = secret.startsWith("whsec_")
    ? Buffer.from(secret.slice("whsec_".length), "base64")
    : Buffer.from(secret, "utf8");
  const mac = crypto.createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body);
  const expected = Buffer.from(`v1,${mac.digest("base64")}`);
  const matches = (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const given = Buffer.from(signature);
    return given.length === expected.length && crypto.timingSafeEqual(given, expected);
  });
  if (!matches) {
    throw new Error("the webhook's signature does not match");
  }
}

/** Status, headers and body of an answer; status 0 when none came. */
async function call(method, path, body) {
  try {
    const answer = await fetch(GATEWAY + path, {
      method,
      headers: { "X-Internal-Secret": KEY, "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(40_000),
    });
    const value = await answer.json().catch(() => ({}));
    return { status: answer.status, headers: answer.headers, value };
  } catch {
    return { status: 0, headers: new Headers(), value: {} };
  }
}

/** Make an attempt to pay. Its key is on disk before anything leaves. */
function start(order, phone, amount) {
  const key = crypto.randomUUID();
  data.payments[key] = { order, phone, amount, status: "SENDING", receipt: null, message: "" };
  save();
  void send(key);
}

/** Repeat the request, always with the same key, until the gateway gives its answer. */
async function send(key) {
  const payment = data.payments[key];
  const body = {
    amount: payment.amount,
    phone: payment.phone,
    account_reference: payment.order,
    idempotency_key: key,
    ...(WEBHOOK_URL && { webhook_url: WEBHOOK_URL }),
  };
  for (;;) {
    const { status, headers, value } = await call("POST", "/initiate", body);
    // With an id the payment exists, and this is how it stands. Without one, 409, 429 and 5xx mean
    // "not now", and 0 means that no answer came.
    if (value.transaction_id) {
      Object.assign(payment, { transaction_id: value.transaction_id, status: "PENDING" });
      break;
    }
    if (![0, 409, 429].includes(status) && status < 500) {
      Object.assign(payment, { status: "REFUSED", message: value.detail ?? "" });
      break;
    }
    await sleep(1000 * Number(headers.get("retry-after") ?? 1));
  }
  save();
  if (payment.transaction_id) {
    // Its webhook may have come before this answer did.
    const { value } = await call("GET", `/transactions/${payment.transaction_id}`);
    if (["COMPLETED", "FAILED"].includes(value.status) && update(value)) save();
  }
}

/** Bring a payment to the state of a webhook, or of GET /transactions. False if it is unknown. */
function update(view) {
  const payments = Object.values(data.payments);
  const payment = payments.find((it) => it.transaction_id === view.transaction_id);
  if (!payment) return false;
  // Money came against what was reported. It stays so until an employee has looked.
  const conflict = view.type === "transaction.conflict" || payment.status === "CONFLICT";
  payment.status = conflict ? "CONFLICT" : view.status;
  payment.receipt = view.metadata?.MpesaReceiptNumber ?? payment.receipt;
  payment.message = view.result?.message?.en ?? "";
  return true;
}

/** Store what a webhook says, once. False when its payment is not known yet. */
function take(id, event) {
  if (data.seen[id] || !event.type.startsWith("transaction.")) return true;
  if (!update(event)) return false;
  data.seen[id] = true;
  save();
  return true;
}

const attemptsOf = (order) => Object.values(data.payments).filter((it) => it.order === order);
const escaped = (text) => String(text).replace(/[&<>"]/g, (it) => `&#${it.charCodeAt(0)};`);

const FORM = `<h1>Shop</h1><form method="post" action="/orders">
Phone <input name="phone" value="254712340000"> KES <input name="amount" value="100">
<button>Pay with M-Pesa</button></form>`;

/** How an order stands. It looks again by itself while a payment is open. */
function page(order, last) {
  let again = "";
  if (["SENDING", "PENDING"].includes(last.status)) {
    again = '<meta http-equiv="refresh" content="2">';
  } else if (last.status === "FAILED") {
    const fields = Object.entries({ order, phone: last.phone, amount: last.amount })
      .map(([name, value]) => `<input type="hidden" name="${name}" value="${escaped(value)}">`);
    again = `<form method="post" action="/orders">${fields.join("")}<button>Try again</button></form>`;
  }
  return `<h1>Order ${escaped(order)}</h1><p>KES ${last.amount}: <b>${last.status}</b>
${escaped(last.receipt ?? "")}</p><p>${escaped(last.message)}</p>${again}`;
}

function answer(response, status, text, headers = {}) {
  response.writeHead(status, { "Content-Type": "text/html; charset=utf-8", ...headers });
  response.end(text);
}

function takeWebhook(request, response, body) {
  try {
    verifyWebhook(SECRET, request.headers, body);
  } catch (error) {
    return answer(response, 400, error.message);
  }
  const known = take(request.headers["webhook-id"], JSON.parse(body));
  return answer(response, known ? 200 : 503, known ? "" : "Not known yet: send it again.");
}

function takeOrder(response, body) {
  const form = new URLSearchParams(body.toString());
  const order = form.get("order") ?? crypto.randomBytes(4).toString("hex").toUpperCase();
  if (attemptsOf(order).some((it) => !["FAILED", "REFUSED"].includes(it.status))) {
    return answer(response, 409, "This order is paid, or its payment is still open.");
  }
  start(order, form.get("phone"), Number(form.get("amount")));
  return answer(response, 303, "", { Location: `/orders/${order}` });
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (request.method === "POST" && request.url === "/mpesa") return takeWebhook(request, response, body);
  if (request.method === "POST" && request.url === "/orders") return takeOrder(response, body);
  if (request.url === "/") return answer(response, 200, FORM);
  const order = request.url.slice("/orders/".length);
  const last = attemptsOf(order).at(-1);
  return last ? answer(response, 200, page(order, last)) : answer(response, 404, "No such order.");
});

if (fs.existsSync(DATABASE)) data = JSON.parse(fs.readFileSync(DATABASE, "utf8"));
// We were stopped before an answer came: ask again, with the keys that were kept.
for (const [key, payment] of Object.entries(data.payments)) {
  if (payment.status === "SENDING") void send(key);
}
server.listen(PORT, "127.0.0.1", () => console.log(`The shop is at http://localhost:${PORT}`));
