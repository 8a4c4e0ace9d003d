//! Marketplaces that this operator judges for: as JSON and as a page.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use serde_json::{Value, json};
use tribunal_events::B256;

use super::{
    HttpState, Problem,
    page::{respond, short},
};
use crate::market::{
    Market,
    book::{Case, Stage},
};

/// Cases on the page and in one answer at most, for each market: those that are not over first.
const CASES_SHOWN: usize = 500;

fn number(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(std::sync::atomic::Ordering::Relaxed)
}

/// Cases, those that ask for somebody first.
fn sorted(market: &Market) -> Vec<(B256, Case)> {
    let mut cases = market.cases();
    cases.sort_by_key(|(id, case)| {
        let urgent = match case.stage() {
            Stage::Contrary => 0,
            Stage::Held => 1,
            Stage::Open | Stage::Judged => 2,
            Stage::Answered | Stage::Closed | Stage::Gone => 3,
        };
        (urgent, std::cmp::Reverse(case.asked.map_or(0, |block| block.number)), *id)
    });
    cases.truncate(CASES_SHOWN);
    cases
}

fn view(market: &Market) -> Value {
    let (chain_id, account) = market.account();
    let stages: serde_json::Map<_, _> =
        market.stages().into_iter().map(|(stage, count)| (stage.word().to_owned(), count.into())).collect();
    json!({
        "name": market.name(), "kind": market.kind(), "chain_id": chain_id, "contract": market.contract(),
        "account": account, "block": number(&market.counts().block), "stages": stages,
        "caught_up": market.counts().caught_up.load(std::sync::atomic::Ordering::Relaxed),
    })
}

/// `GET /api/v1/markets`
pub(super) async fn list(State(state): State<HttpState>) -> axum::Json<Value> {
    axum::Json(json!({ "markets": state.0.markets.iter().map(|market| view(market)).collect::<Vec<_>>() }))
}

/// `GET /api/v1/markets/{name}/cases`
pub(super) async fn cases(
    State(state): State<HttpState>,
    name: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<Value>, Problem> {
    let Path(name) = name?;
    let market = state.0.markets.iter().find(|market| market.name() == name);
    let market = market.ok_or_else(|| Problem::missing(format!("no market {name} is followed here")))?;
    let cases = sorted(market).into_iter().map(|(id, case)| {
        let mut value = json!(case);
        value["case"] = json!(id);
        value["stage"] = case.stage().word().into();
        value
    });
    Ok(axum::Json(json!({ "cases": cases.collect::<Vec<_>>() })))
}

/// `GET /api/v1/markets/words/{case}`: what a mediator here signed about a panel's case, for the others of the panel.
pub(super) async fn word(
    State(state): State<HttpState>,
    case: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<Value>, Problem> {
    let Path(text) = case?;
    let case: B256 =
        text.parse().map_err(|_| Problem::bad("case", format!("a case is 0x and 64 hex digits, not {text:?}")))?;
    let word = state.0.markets.iter().find_map(|market| market.word(&case));
    word.map(axum::Json).ok_or_else(|| Problem::missing(format!("nothing is signed here about {case}")))
}

/// `GET /markets`
pub(super) async fn page(State(state): State<HttpState>) -> Response {
    let body = html! {
        h1 { "Markets" }
        p.lead { "Marketplaces of others that an account of this operator judges for." }
        @if state.0.markets.is_empty() {
            div.card.empty { p { "None is followed here; see " code { "[markets]" } " in the settings." } }
        }
        @for market in &state.0.markets { (one(market)) }
    };
    respond(StatusCode::OK, "Markets", None, &body)
}

fn one(market: &Market) -> Markup {
    let (chain_id, account) = market.account();
    let cases = sorted(market);
    let caught_up = market.counts().caught_up.load(std::sync::atomic::Ordering::Relaxed);
    html! {
        section.card {
            h2 { (market.name()) " " @if !caught_up { span.badge.inconclusive { "reading the chain" } } }
            p.dim { (market.kind()) " " code title=(format!("{:#x}", market.contract())) { (short(&format!("{:#x}", market.contract()))) }
                " on chain " (chain_id) ", as " code title=(format!("{account:#x}")) { (short(&format!("{account:#x}"))) }
                ", read to block " (number(&market.counts().block)) }
            @if cases.is_empty() { p { "Nobody asked yet." } } @else { table.books {
                thead { tr { th { "Case" } th { "Stands" } th { "Verdict" } th { "Answered" } th { "Why" } } }
                tbody { @for (id, case) in &cases { (row(*id, case)) } }
            } }
        }
    }
}

fn row(id: B256, case: &Case) -> Markup {
    let word = |valid: bool| if valid { "valid" } else { "invalid" };
    let tone = match case.stage() {
        Stage::Answered => "valid",
        Stage::Contrary => "invalid",
        Stage::Held => "inconclusive",
        _ => "open",
    };
    let reason = case.report.as_ref().and_then(|report| report["reason"]["detail"].as_str()).map(str::to_owned);
    let why = match (&case.held, &case.closed) {
        (_, Some((how, _))) => Some(how.clone()),
        (Some((_, why)), _) if case.is_open() => Some(why.clone()),
        _ => reason,
    };
    html! { tr {
        td { code title=(id) { (short(&id.to_string())) } }
        td { span class={ "badge " (tone) } { (case.stage().word()) } }
        td { @if let Some(valid) = case.verdict { (word(valid)) } @else { "–" } }
        td { @if let Some((valid, block)) = case.answered { (word(valid)) div.dim { "block " (block.number) } } @else { "–" } }
        td.dim { (why.unwrap_or_default()) }
    } }
}
