"""What a chaos run came to, as JSON and as a table."""

from __future__ import annotations

import collections
import math
import statistics
from datetime import UTC, datetime
from typing import Any

from harness.chaos_evidence import HARMING, ChaosEvidence
from harness.nemesis import Done
from harness.recovery import Recovery

Report = dict[str, Any]
# Recoveries that follow no kill.
AFTER = "after: "
ALL_HEALED = "all healed"
# A fault and its recovery are noted one after the other.
SAME_FAULT_S = 1.0


def make_report(
    *,
    seed: int,
    duration_s: float,
    took_s: float,
    per_s: float,
    evidence: ChaosEvidence,
    done: list[Done],
    recoveries: list[Recovery],
    network: dict[str, int],
    skipped: dict[str, str],
    problems: list[str],
) -> Report:
    """Everything that the table says, and the plan that was carried out."""
    ledger = evidence.ledger
    kills = [it for it in recoveries if it.kind.startswith("kill")]
    outages = [it for it in recoveries if it.kind.startswith(AFTER)]
    healed = next((it for it in recoveries if it.kind == ALL_HEALED), None)
    acks = sorted(it["duration_ms"] for it in ledger["callbacks"] if it["status"] == 200)
    return {
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "duration_s": duration_s,
        "took_s": round(took_s, 1),
        "payments_per_s": per_s,
        "payments": len(evidence.asked),
        "clients_answered": sum(bool(it.answers) for it in evidence.asked),
        "client_retries": sum(len(it.troubles) for it in evidence.asked),
        "pushes_accepted": sum(it["accepted"] for it in ledger["pushes"]),
        "debits": len(ledger["debits"]),
        "callbacks": len(ledger["callbacks"]),
        "callbacks_answered_200": len(acks),
        "callback_ms": {"p50": quantile(acks, 0.5), "p99": quantile(acks, 0.99)},
        "webhook_requests": len(evidence.webhooks),
        "webhooks_delivered": sum(row["state"] == "DELIVERED" for row in evidence.deliveries),
        "lost": len(evidence.lost()),
        "double_charged": len(evidence.doubled()),
        "duplicate_webhooks": evidence.repeats(),
        "unsettled": unsettled(evidence),
        "kills": count(it.kind for it in kills),
        "faults": count(it.fault.kind for it in done),
        "network": network,
        "recovery_s": {
            "all": spread(kills),
            **{kind: spread(it for it in kills if it.kind == kind) for kind in kinds(kills)},
        },
        "recovery_undisturbed_s": spread_of([undisturbed_s(it, done) for it in kills]),
        "outages_s": {
            kind: spread(it for it in outages if it.kind == kind) for kind in kinds(outages)
        },
        "outage_recoveries": [recovered(it, done) for it in outages],
        "losses": evidence.losses.figures(),
        "skipped": skipped,
        "backlog_empty_after_last_fault_s": healed.took_s if healed else None,
        "recoveries": [recovered(it, done) for it in kills],
        "problems": problems,
        "plan": [
            {
                "at_s": it.fault.at_s,
                "kind": it.fault.kind,
                "target": it.fault.target,
                "lasts_s": it.fault.lasts_s,
                "amount": it.fault.amount,
                "took_s": round(it.healed_at - it.began_at, 2),
            }
            for it in done
        ],
    }


def recovered(recovery: Recovery, done: list[Done]) -> dict[str, Any]:
    """One recovery, what was done last, and which other faults went on meanwhile."""
    others = beside(recovery, done)
    return {
        "kind": recovery.kind,
        "took_s": recovery.took_s,
        "undisturbed_s": undisturbed_s(recovery, done),
        "ready_s": round(recovery.ready_at - recovery.began_at, 2) if recovery.ready_at else None,
        "last": recovery.last,
        "beside": [it.fault.kind for it in others],
    }


def beside(recovery: Recovery, done: list[Done]) -> list[Done]:
    """The other faults that were there before all was well again."""
    until = recovery.over_at or math.inf
    return [
        it
        for it in done
        if it.healed_at > recovery.began_at
        and it.began_at < until
        and abs(it.began_at - recovery.began_at) > SAME_FAULT_S
    ]


def undisturbed_s(recovery: Recovery, done: list[Done]) -> float | None:
    """From the kill, or from the end of the last other harm beside it, until all was well."""
    if recovery.took_s is None:
        return None
    harm = [it for it in beside(recovery, done) if it.fault.kind.startswith(HARMING)]
    ends = [it.healed_at for it in harm if it.healed_at <= recovery.over_at]
    return round(recovery.over_at - max([recovery.began_at, *ends]), 2)


def unsettled(evidence: ChaosEvidence) -> dict[str, int]:
    """Payments without an end, by why: a person or a later callback ends each, and it says so."""
    pushes = {it["phone"]: it for it in evidence.ledger["pushes"]}
    charged = {it["phone"] for it in evidence.ledger["debits"]}
    why = collections.Counter[str]()
    for row in evidence.transactions:
        phone = row["phone"]
        if row["status"] != "PENDING":
            continue
        if row["in_doubt"]:
            why[f"in doubt: {row['attention'].split('.')[0]}"] += 1
        elif row["checkout_request_id"] is not None:
            why["Safaricom knows it and gives no result"] += 1
        elif phone not in pushes:
            why["the push never arrived, which only the witness knows"] += 1
        elif not pushes[phone]["accepted"]:
            why["Safaricom answered the push with a page that says nothing"] += 1
        elif pushes[phone]["callback_copies"] == 0:
            why["no answer to the push, and Safaricom never calls back"] += 1
        elif phone in charged:
            why["no answer to the push, the only callback was lost on its way: charged"] += 1
        else:
            why["no answer to the push, the only callback was lost on its way: not charged"] += 1
    return dict(sorted(why.items()))


def count(words: Any) -> dict[str, int]:
    """How often each comes."""
    return dict(sorted(collections.Counter(words).items()))


def kinds(recoveries: list[Recovery]) -> list[str]:
    """Each kind once."""
    return sorted({it.kind for it in recoveries})


def quantile(ordered: list[Any], share: float) -> Any:
    """Of sorted values; None of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def spread(recoveries: Any) -> dict[str, Any]:
    """p50, p99 and the longest; `never` were not over when the run was."""
    return spread_of([it.took_s for it in recoveries])


def spread_of(times: list[float | None]) -> dict[str, Any]:
    """The same of seconds, None where it was not over."""
    known = sorted(it for it in times if it is not None)
    return {
        "n": len(times),
        "never": len(times) - len(known),
        "p50": round(statistics.median(known), 2) if known else None,
        "p99": quantile(known, 0.99),
        "max": known[-1] if known else None,
    }


def lines(report: Report) -> list[str]:
    """The table, in Markdown."""
    recovery = report["recovery_s"]
    rows: list[tuple[str, object]] = [
        ("seed", report["seed"]),
        ("duration", f"{report['duration_s']:.0f} s"),
        ("payments", report["payments"]),
        ("requests that clients had to repeat", report["client_retries"]),
        ("customers charged", report["debits"]),
        ("callbacks posted", report["callbacks"]),
        ("callbacks answered 200", report["callbacks_answered_200"]),
        ("webhooks delivered", report["webhooks_delivered"]),
        ("kill -9", sum(report["kills"].values())),
        ("faults of all kinds", sum(report["faults"].values())),
        ("commits whose answer was swallowed", report["network"]["swallowed"]),
        ("**lost**", report["lost"]),
        ("**double-charged**", report["double_charged"]),
        ("duplicate webhooks", report["duplicate_webhooks"]),
        ("unsettled, and shown as that", sum(report["unsettled"].values())),
        ("backlog empty after the last fault", f"{report['backlog_empty_after_last_fault_s']} s"),
        ("problems", len(report["problems"])),
    ]
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    table += ["", "| recovery after kill -9 | n | p50 s | p99 s | max s |", "|---|---|---|---|---|"]
    undisturbed = {"all, from the end of the last other fault": report["recovery_undisturbed_s"]}
    for kind, it in {**recovery, **undisturbed}.items():
        never = f" ({it['never']} never)" if it["never"] else ""
        table.append(f"| {kind} | {it['n']}{never} | {it['p50']} | {it['p99']} | {it['max']} |")
    table += [
        "",
        "| recovery from the end of | n | p50 s | p99 s | max s |",
        "|---|---|---|---|---|",
    ]
    for kind, it in report["outages_s"].items():
        never = f" ({it['never']} never)" if it["never"] else ""
        name = kind.removeprefix(AFTER)
        table.append(f"| {name} | {it['n']}{never} | {it['p50']} | {it['p99']} | {it['max']} |")
    table += ["", "| the database forgot, and the report of recovery says | |", "|---|---|"]
    table += [f"| {what} | {times} |" for what, times in report["losses"].items()]
    table += [f"| not run: {kind} | {why} |" for kind, why in report["skipped"].items()]
    table += ["", "| unsettled, because | payments |", "|---|---|"]
    table += [f"| {why} | {times} |" for why, times in report["unsettled"].items()]
    table += ["", "| fault | times |", "|---|---|"]
    table += [f"| {kind} | {times} |" for kind, times in report["faults"].items()]
    return table
