import { pay } from "./client.js";

console.log(await pay(process.argv[2], process.argv[3], process.argv[4]));
