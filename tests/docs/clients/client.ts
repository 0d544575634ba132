// Makes a payment and reads it, with types from openapi-typescript. Compiled strictly.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Transaction = components["schemas"]["Transaction"];

export async function pay(baseUrl: string, key: string, idempotencyKey: string): Promise<string> {
  const client = createClient<paths>({ baseUrl, headers: { "X-Internal-Secret": key } });
  const made = await client.POST("/initiate", {
    body: {
      amount: "150000",
      phone: "254712344001",
      idempotency_key: idempotencyKey,
      webhook_url: "https://shop.example/mpesa",
    },
  });
  if (made.error) {
    throw new Error(`${made.error.type}: ${made.error.detail}`);
  }
  const read = await client.GET("/transactions/{transaction_id}", {
    params: { path: { transaction_id: made.data.transaction_id } },
  });
  const transaction: Transaction | undefined = read.data;
  if (!transaction) {
    throw new Error("the payment cannot be read");
  }
  return `${transaction.transaction_id} ${transaction.amount} ${transaction.status}`;
}
