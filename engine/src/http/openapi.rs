//! The description of the API, for machines.

use serde_json::{Value, json};

/// OpenAPI 3.1.
pub(super) fn document() -> Value {
    let at = query("at", "integer", "as it stood when the log had this many records");
    let id = json!({
        "name": "id", "in": "path", "required": true, "description": "deal id",
        "schema": { "type": "string", "pattern": "^0x[0-9a-f]{64}$" }
    });
    let mediator = json!({
        "name": "address", "in": "path", "required": true, "description": "account of a mediator",
        "schema": { "type": "string", "pattern": "^0x[0-9a-fA-F]{40}$" }
    });
    let deal = |more: Vec<Value>| [vec![id.clone()], more].concat();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tribunal", "version": env!("CARGO_PKG_VERSION"),
            "description": "Events, deals and verification of a mediation engine. 64-bit integers inside protobuf messages are decimal strings, bytes in them base64 (canonical proto3 JSON)."
        },
        "paths": {
            "/api/v1/deals": { "get": {
                "operationId": "listDeals", "summary": "Deals, the one that changed last first",
                "parameters": [
                    query("limit", "integer", "1 to 500, default 50"),
                    query("offset", "integer", "deals to skip, default 0"), at
                ],
                "responses": responses("A page of deals", schema("Deals"), &["400", "503"])
            } },
            "/api/v1/deals/{id}": { "get": {
                "operationId": "getDeal", "summary": "All about a deal", "parameters": deal(vec![at.clone()]),
                "responses": responses("The deal", schema("Deal"), &["400", "404", "503"])
            } },
            "/api/v1/deals/{id}/events": { "get": {
                "operationId": "listEvents", "summary": "The signed events of a deal, in order",
                "parameters": deal(vec![
                    query("from", "integer", "first version, default 1"),
                    query("limit", "integer", "1 to 1000, default 100"), at
                ]),
                "responses": responses("Records", schema("Events"), &["400", "404", "503"])
            } },
            "/api/v1/deals/{id}/bundle": { "get": {
                "operationId": "getBundle", "summary": "Portable evidence; `tribunal bundle verify FILE` checks it",
                "parameters": deal(vec![]),
                "responses": with_problems(json!({
                    "200": { "description": "The bundle", "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } } }
                }), &["400", "404", "503"])
            } },
            "/api/v1/inbox": { "get": {
                "operationId": "getInbox", "summary": "Cases in which a mediator run here sits on the panel and is not done",
                "description": "The most urgent first; also those of followed records. `stage` is judge, artifacts, committed, reveal or voted.",
                "responses": responses("The cases", json!({ "type": "object" }), &["503"])
            } },
            "/api/v1/markets": { "get": {
                "operationId": "listMarkets", "summary": "Marketplaces of others that an account of this operator judges for",
                "responses": responses("The markets", json!({ "type": "object" }), &[])
            } },
            "/api/v1/markets/{name}/cases": { "get": {
                "operationId": "listMarketCases", "summary": "Their cases, those that ask for somebody first",
                "description": "`stage` is open, held, judged, answered, contrary, closed or gone.",
                "parameters": [path("name", "name of the market in the settings")],
                "responses": responses("The cases", json!({ "type": "object" }), &["404"])
            } },
            "/api/v1/markets/words/{case}": { "get": {
                "operationId": "getPanelWord", "summary": "What a mediator here signed about a panel's case, for the others of the panel",
                "parameters": [path("case", "id of the case: key of the arbitration")],
                "responses": responses("The signed word", json!({ "type": "object" }), &["400", "404"])
            } },
            "/api/v1/mediators/{address}": { "get": {
                "operationId": "getMediator", "summary": "A mediator's cases, earnings, slashes and reputation",
                "description": "The newest cases first. Sums are over all cases, or with `since` over those opened from then on; score and streak are over all.",
                "parameters": [mediator.clone(),
                    query("since", "string", "a day such as 2026-03-01, RFC 3339 or unix seconds"),
                    query("limit", "integer", "cases, 1 to 1000, default 100"),
                    query("offset", "integer", "cases to skip, default 0")
                ],
                "responses": responses("The record", schema("MediatorRecord"), &["400", "404", "503"])
            } },
            "/api/v1/mediators/{address}/record.csv": { "get": {
                "operationId": "getMediatorCsv", "summary": "The same as a table for spreadsheets (RFC 4180), one line a case, the oldest first",
                "description": crate::accounts::CSV_COLUMNS.join(", "),
                "parameters": [mediator, query("since", "string", "as above")],
                "responses": with_problems(json!({
                    "200": { "description": "The cases", "content": { "text/csv": { "schema": { "type": "string" } } } }
                }), &["400", "404", "503"])
            } },
            "/api/v1/events": { "post": {
                "operationId": "postEvents",
                "summary": "Sends signed events and waits for their receipts",
                "description": "409: all that is refused may be admitted in its turn; 422: something never will. Both carry all receipts. Sending again is always safe.",
                "security": [{}, { "token": [] }],
                "requestBody": { "required": true, "content": {
                    "application/json": { "schema": schema("Envelope") },
                    "application/x-ndjson": { "schema": { "type": "string", "description": "one envelope a line, at most 256" } },
                    "application/x-protobuf": { "schema": { "type": "string", "format": "binary", "description": "tribunal.v1.Envelope" } }
                } },
                "responses": responses("All are recorded", schema("Receipts"), &["400", "401", "409", "413", "415", "422", "503", "504"])
            } },
            "/api/v1/verify": { "post": {
                "operationId": "verify", "summary": "Verifies a claim; the answer is signed as a Report",
                "description": "A request that names a deal_id must ask what that deal records. A request_id makes a retry give the same answer.",
                "requestBody": { "required": true, "content": { "application/json": { "schema": schema("VerificationRequest") } } },
                "responses": responses("The verdict", schema("Verdict"), &["400", "413", "415", "503", "504"])
            } },
            "/api/v1/events/stream": { "get": {
                "operationId": "streamEvents", "summary": "Recorded events as server-sent events",
                "description": "Event `recorded`, id: log position, data: a Record. Resumes after Last-Event-ID; without it and without `after` begins with what comes next.",
                "parameters": [
                    { "name": "Last-Event-ID", "in": "header", "schema": { "type": "integer" } },
                    query("after", "integer", "log position to begin after"),
                    query("deal", "string", "of this deal alone")
                ],
                "responses": with_problems(json!({
                    "200": { "description": "The stream", "content": { "text/event-stream": { "schema": { "type": "string" } } } }
                }), &["400", "503"])
            } },
            "/api/v1/checkpoint": { "get": {
                "operationId": "getCheckpoint", "summary": "The newest signed checkpoint of the log (C2SP tlog-checkpoint)",
                "parameters": [query("size", "integer", "the checkpoint of exactly so many records instead")],
                "responses": with_problems(json!({
                    "200": { "description": "The signed note", "content": { "text/plain": { "schema": { "type": "string" } } } }
                }), &["400", "404", "503"])
            } },
            "/log/checkpoint": { "get": {
                "operationId": "getTlogCheckpoint", "summary": "As /api/v1/checkpoint, where C2SP tlog-tiles clients look for it",
                "responses": with_problems(json!({
                    "200": { "description": "The signed note", "content": { "text/plain": { "schema": { "type": "string" } } } }
                }), &["404", "503"])
            } },
            "/log/tile/{path}": { "get": {
                "operationId": "getTlogTile", "summary": "A tile of the Merkle tree (C2SP tlog-tiles): up to 256 hashes of 32 bytes",
                "parameters": [path("path", "<level>/<number>[.p/<width>], the number in groups of three digits like x001/234")],
                "responses": with_problems(json!({
                    "200": { "description": "The hashes", "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } } }
                }), &["400", "404", "503"])
            } },
            "/api/v1/log/keys": { "get": {
                "operationId": "getLogKeys", "summary": "The verifier keys that signed this log, newest last, each with the operator's signature on it",
                "responses": responses("The keys", json!({ "type": "object" }), &["503"])
            } },
            "/api/v1/proofs/inclusion": { "get": {
                "operationId": "proveInclusion", "summary": "That a record is in the log (RFC 6962), with the record and the checkpoint",
                "parameters": [
                    query("position", "integer", "log position, from 1; this or event_id"),
                    query("event_id", "string", "the event"),
                    query("size", "integer", "against the checkpoint of so many records; default: the newest")
                ],
                "responses": responses("The proof", json!({ "type": "object" }), &["400", "404", "503"])
            } },
            "/api/v1/proofs/consistency": { "get": {
                "operationId": "proveConsistency", "summary": "That the log has only grown since it had so many records (RFC 6962)",
                "parameters": [
                    query("from", "integer", "records before"),
                    query("to", "integer", "against the checkpoint of so many records; default: the newest")
                ],
                "responses": responses("The proof", json!({ "type": "object" }), &["400", "404", "503"])
            } },
            "/api/v1/proofs/head": { "get": {
                "operationId": "proveHead", "summary": "Where a deal stood at the newest checkpoint, and that nothing of it is left out; or that there is no such deal",
                "parameters": [query("deal_id", "string", "the deal")],
                "responses": responses("The proof", json!({ "type": "object" }), &["400", "404", "503"])
            } },
            "/healthz": { "get": { "operationId": "health", "summary": "The process answers", "responses": { "200": { "description": "ok" } } } },
            "/readyz": { "get": {
                "operationId": "ready", "summary": "Events are read and written",
                "responses": { "200": { "description": "ready" }, "503": { "description": "not ready" } }
            } },
            "/metrics": { "get": {
                "operationId": "metrics", "summary": "Prometheus text",
                "responses": { "200": { "description": "metrics", "content": { "text/plain": {} } } }
            } }
        },
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": "where the operator asks for one" } },
            "schemas": schemas()
        }
    })
}

fn path(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" } })
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn responses(description: &str, schema: Value, problems: &[&str]) -> Value {
    let ok = json!({ "200": { "description": description, "content": { "application/json": { "schema": schema } } } });
    with_problems(ok, problems)
}

fn with_problems(mut responses: Value, problems: &[&str]) -> Value {
    for status in problems {
        responses[*status] = json!({
            "description": "Problem",
            "content": { "application/problem+json": { "schema": schema("Problem") } }
        });
    }
    responses
}

fn schemas() -> Value {
    let hex = |bytes: usize| json!({ "type": "string", "pattern": format!("^0x[0-9a-f]{{{}}}$", bytes * 2) });
    let text = || json!({ "type": "string" });
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let summary = json!({
        "deal_id": hex(32), "state": { "enum": ["negotiating", "agreed", "result-submitted", "disputed", "decided", "settled", "imported"] },
        "outcome": { "type": "string", "description": "open, accepted, valid, invalid, inconclusive, agree-timeout, submit-timeout, judge-timeout, mediate-timeout or withdrawn; of an imported deal its state in the marketplace, such as MediationRejected" },
        "imported": { "type": "object", "description": "where an imported deal comes from", "properties": {
            "marketplace": text(), "chain_id": integer(), "storage": hex(20), "foreign_id": text()
        } },
        "reason_code": { "type": ["string", "null"] }, "client": hex(20), "provider": hex(20), "version": integer(),
        "last_position": integer(), "updated_at": { "type": "string", "format": "date-time" },
        "next_deadline": { "type": ["object", "null"], "properties": { "kind": text(), "at": text() } },
        "payouts": list(json!({ "type": "object", "properties": {
            "account": hex(20), "role": text(), "locked": text(), "paid": text(), "net": text()
        } })),
        "transaction": { "type": ["string", "null"] }
    });
    let mut deal = summary.clone();
    let more = json!({
        "operator": hex(20), "terms_hash": hex(32), "chain_id": integer(), "contract": hex(20), "link": hex(32),
        "terms": { "type": "object", "description": "tribunal.v1.Terms" },
        "timeline": list(json!({ "type": "object", "properties": {
            "version": integer(), "position": integer(), "at": text(), "kind": text(), "by": text(), "what": text(),
            "event_id": hex(32), "link": hex(32)
        } })),
        "votes": list(json!({ "type": "object", "properties": {
            "position": integer(), "mediator": hex(20), "round": integer(), "verdict": text(), "reason_code": text(),
            "digest": text(), "report": { "type": ["object", "null"] }
        } }))
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        deal[name] = value.clone();
    }
    json!({
        "Summary": { "type": "object", "properties": summary },
        "Deals": { "type": "object", "properties": {
            "deals": list(schema("Summary")), "total": integer(), "next_offset": { "type": ["integer", "null"] }, "log_position": integer()
        } },
        "Deal": { "type": "object", "properties": deal },
        "MediatorRecord": mediator_record(),
        "Record": { "type": "object", "properties": {
            "position": integer(), "version": integer(), "deal_id": hex(32), "event_id": hex(32), "kind": text(),
            "recorded_at": text(), "signer": hex(20), "previous": hex(32), "link": hex(32), "envelope": schema("Envelope"),
            "event": { "type": "object", "description": "tribunal.v1.Event" }
        } },
        "Events": { "type": "object", "properties": {
            "deal_id": hex(32), "events": list(schema("Record")), "next_version": { "type": ["integer", "null"] }
        } },
        "Envelope": { "type": "object", "required": ["event", "signature"], "properties": {
            "event": { "type": "string", "contentEncoding": "base64" }, "signature": { "type": "string", "contentEncoding": "base64" }
        } },
        "Receipt": { "type": "object", "properties": {
            "event_id": hex(32), "deal_id": hex(32), "status": { "enum": ["admitted", "duplicate", "refused"] },
            "stream_version": integer(), "log_position": integer(), "reason_code": text(), "reason": text(),
            "signer": hex(20), "receipt": { "type": "object", "description": "tribunal.v1.Receipt, as signed" }
        } },
        "Receipts": { "type": "object", "properties": { "receipts": list(schema("Receipt")) } },
        "VerificationRequest": { "type": "object", "required": ["method"], "properties": {
            "request_id": text(), "deal_id": hex(32),
            "method": { "type": "object", "required": ["kind"], "properties": {
                "kind": { "enum": ["reexecution", "proof", "majority", "external", "all", "any", "threshold"] }
            } },
            "job": { "type": "object" }, "claim": { "type": "object" }, "comparator": { "type": "object" }
        } },
        "Verdict": { "type": "object", "properties": {
            "verdict": { "enum": ["valid", "invalid", "inconclusive"] },
            "reason": { "type": "object", "properties": { "code": text(), "detail": text() } },
            "evidence": { "type": "object" }, "digest": text(), "request_digest": text(), "signer": hex(20),
            "signature": hex(65)
        } },
        "Problem": { "type": "object", "description": "RFC 9457", "properties": {
            "type": text(), "title": text(), "status": integer(), "code": text(), "detail": text(), "field": text(),
            "reason_code": text(), "receipts": list(schema("Receipt"))
        } }
    })
}

fn mediator_record() -> Value {
    let text = || json!({ "type": "string" });
    let maybe = || json!({ "type": ["string", "null"] });
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let list = |properties: Value| json!({ "type": "array", "items": { "type": "object", "properties": properties } });
    let case = json!({
        "deal_id": text(), "round": integer(), "opened_at": text(), "protocol": { "enum": ["drawn", "appointed"] },
        "panel_size": integer(), "committed_at": maybe(), "voted_at": maybe(), "vote": maybe(), "reason_code": text(),
        "with_majority": { "type": ["boolean", "null"] },
        "standing": { "enum": ["open", "agreed", "disagreed", "inconclusive", "undecided", "silent", "unheard"] },
        "outcome": maybe(), "redrawn": { "type": "boolean" }, "token": text(), "fee": text(), "settled_at": maybe(),
        "slash": text(), "slash_transaction": maybe(), "gas_used": integer()
    });
    let day =
        json!({ "day": { "type": "string", "format": "date" }, "token": text(), "earned": text(), "cases": integer() });
    let mut record = json!({
        "mediator": text(), "log_position": integer(), "as_of": text(), "last_vote_at": maybe(), "slashed": text(),
        "earned": { "type": "object", "description": "base units by token", "additionalProperties": text() },
        "next_offset": { "type": ["integer", "null"] }, "days": list(day), "records": list(case)
    });
    let counts = [
        "cases",
        "open",
        "voted",
        "agreed",
        "disagreed",
        "inconclusive",
        "undecided",
        "silent",
        "unheard",
        "redrawn",
        "withheld",
        "gas_used",
        "score",
        "streak",
        "streak_longest",
    ];
    for name in counts {
        record[name] = integer();
    }
    json!({ "type": "object", "properties": record })
}
