//! The web page: deals, and one deal from terms to money. Rendered here, no scripts needed, nothing loaded from elsewhere.

use std::sync::LazyLock;

use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tribunal_core::{Deal, Phase, price};
use tribunal_events::{Address, Amount, DealId, EventKind, Method, Outcome, Protocol};

use super::{AtQuery, DealsQuery, HttpState, Problem, read};
use crate::{
    import::view::imported,
    replay::ReplayFault,
    store::Store,
    view::{self, DealSummary, PayoutView, TimelineEntry},
};

pub(crate) const STYLE: &str = include_str!("page.css");

/// Looks again when something is recorded, unless somebody is reading further down.
const SCRIPT: &str = "(()=>{let t;const s=new EventSource('/api/v1/events/stream'+(document.body.dataset.deal?'?deal='+document.body.dataset.deal:''));\
s.addEventListener('recorded',()=>{if(!t)t=setTimeout(()=>{if(scrollY<80)location.reload()},400)});\
addEventListener('pagehide',()=>s.close())})()";

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; connect-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
});

/// Everything that the page of a deal shows.
struct DealPage {
    deal: Deal,
    summary: DealSummary,
    timeline: Vec<TimelineEntry>,
    votes: Vec<read::VoteView>,
    claim: Option<(u64, Amount)>,
    dispute: Option<String>,
    silent: Vec<Address>,
}

/// The deals, the one that changed last first.
pub(super) async fn index(
    State(state): State<HttpState>,
    query: Result<Query<DealsQuery>, QueryRejection>,
) -> Response {
    let page = async {
        let Query(query) = query?;
        let (offset, limit) = query.page()?;
        state
            .read(move |store| read::deals(store, offset, limit, query.at))
            .await
            .map(|page| (offset, limit, query.at, page))
    };
    match page.await {
        Ok((offset, limit, at, page)) => respond(StatusCode::OK, "Deals", None, &deals(&page, offset, limit, at)),
        Err(problem) => sorry(&problem),
    }
}

/// One deal.
pub(super) async fn deal(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AtQuery>, QueryRejection>,
) -> Response {
    let page = async {
        let (Path(id), Query(query)) = (id?, query?);
        let id = super::deal_id(&id)?;
        if let Some(page) = state.read(move |store| gather(store, &id, query.at)).await? {
            return Ok((id, one(&id, &page, query.at, state.0.store_hint.as_deref())));
        }
        let found = state.read(move |store| imported(store, &id, query.at)).await?;
        found.ok_or_else(|| super::no_deal(&id, query.at)).map(|it| (id, super::imported::one(&id, &it, query.at)))
    };
    match page.await {
        Ok((id, page)) => respond(StatusCode::OK, &format!("Deal {}", short(&id.to_string())), Some(&id), &page),
        Err(problem) => sorry(&problem),
    }
}

fn gather(store: &Store, id: &DealId, at: Option<u64>) -> Result<Option<DealPage>, ReplayFault> {
    let Some((deal, last)) = view::deal_until(store, id, at)? else { return Ok(None) };
    let (mut claim, mut dispute, mut silent) = (None, None, Vec::new());
    for record in store.stream(id, 1) {
        let record = record?;
        let position = record.position;
        if at.is_some_and(|at| position > at) {
            break;
        }
        let parsed = record.envelope.parse().map_err(|source| ReplayFault::Decode { position, source })?;
        match parsed.into_kind() {
            EventKind::ResultSubmitted { claim: it, .. } => {
                claim = Some((it.instruction_count, price(deal.terms(), it.instruction_count)));
            }
            EventKind::Disputed { reason, .. } => dispute = Some(reason),
            EventKind::DeadlineElapsed { deadline, silent: who, .. } if deadline == "mediate" => silent.extend(who),
            _ => {}
        }
    }
    Ok(Some(DealPage {
        summary: view::summary(&deal, last.position, last.recorded_at),
        timeline: view::timeline(store, id, at)?,
        votes: read::votes(store, id, at)?,
        deal,
        claim,
        dispute,
        silent,
    }))
}

pub(super) fn respond(status: StatusCode, title: &str, deal: Option<&DealId>, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tribunal" }
                style { (PreEscaped(STYLE)) }
            }
            body data-deal=[deal] {
                header.top {
                    a.brand href="/" { "Tribunal" }
                    nav { a href="/" { "Deals" } a href="/mediators" { "Mediators" } a href="/markets" { "Markets" } a href="/api/v1/openapi.json" { "API" } a href="/metrics" { "Metrics" } }
                }
                main { (body) }
                footer { "Every line here is a signed event in an append-only log. Times are UTC." }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page.into_string()).into_response()
}

pub(super) fn sorry(problem: &Problem) -> Response {
    let (status, detail) = problem.parts();
    let body = html! {
        h1 { (status.canonical_reason().unwrap_or("Problem")) }
        p { (detail) }
        p { a href="/" { "All deals" } }
    };
    respond(status, "Problem", None, &body)
}

fn deals(page: &read::DealsPage, offset: usize, limit: usize, at: Option<u64>) -> Markup {
    let link = |offset: usize| {
        let at = at.map_or_else(String::new, |at| format!("&at={at}"));
        format!("/?limit={limit}&offset={offset}{at}")
    };
    html! {
        h1 { "Deals" }
        p.lead {
            (page.total) @if page.total == 1 { " deal" } @else { " deals" } " in a log of " (grouped(&page.log_position.to_string())) " events"
            @if let Some(at) = at { ", as it stood at position " (at) " · " a href="/" { "now" } }
        }
        @if page.deals.is_empty() {
            div.card.empty {
                p { @if page.total == 0 { "No deal is recorded yet." } @else { "No deals here." } }
                p { "Send one: " code { "tribunal submit events.jsonl" } ", or play the recorded ones: " code { "tribunal demo" } }
            }
        } @else {
            div.card { table.deals {
                thead { tr { th { "Outcome" } th { "Deal" } th { "Client → provider" } th.n { "Money moved" } th.n { "Last event" } } }
                tbody { @for deal in &page.deals { tr {
                    td { (badge(deal)) }
                    td { a.id href={ "/deals/" (deal.deal_id) } { (short(&deal.deal_id.to_string())) }
                        @if let Some(code) = reason(deal) { div.dim { (code) } } }
                    td.parties { (account(deal.client)) span.dim { " → " } (account(deal.provider)) }
                    td.n { (money_moved(deal)) }
                    td.n.dim { (when(&deal.updated_at)) }
                } } }
            } }
        }
        nav.pages {
            @if offset > 0 { a href=(link(offset.saturating_sub(limit))) { "← newer" } }
            @if let Some(next) = page.next_offset { a href=(link(next)) { "older →" } }
        }
    }
}

fn one(id: &DealId, page: &DealPage, at: Option<u64>, store: Option<&str>) -> Markup {
    let (deal, summary) = (&page.deal, &page.summary);
    let terms = deal.terms();
    html! {
        p.crumbs { a href="/" { "Deals" } " / " (short(&id.to_string()))
            @if let Some(at) = at { " · as it stood at log position " (at) " · " a href={ "/deals/" (id) } { "now" } } }
        section.hero {
            div { (badge(summary)) @if let Some(code) = reason(summary) { span.code { (code) } } }
            h1 { (headline(page)) }
            @if let Some(why) = why(page) { p.why { (why) } }
            p.mono.dim.wrap { (id) }
        }
        div.grid {
            section.card {
                h2 { "Who was paid" }
                (payouts(page))
            }
            section.card {
                h2 { "Terms" }
                dl {
                    dt { "Client" } dd { (account(terms.client)) }
                    dt { "Provider" } dd { (account(terms.provider)) }
                    dt { "Operator" } dd { (account(terms.operator)) }
                    dt { "Job" } dd { (terms.job.runtime) " " code title=(terms.job.module) { (short(&terms.job.module.to_string())) } }
                    dt { "Checked by" } dd { (match &terms.method {
                        Method::Reexecution => "re-execution".to_owned(),
                        Method::Proof { system, curve, .. } => format!("{system} proof {curve}"),
                        Method::Majority { replicators, .. } => format!("majority of {} replicators", replicators.len()),
                    }) }
                    dt { "Judged by" } dd { @match terms.mediation.protocol {
                        Protocol::Appointed => { "an appointed mediator" }
                        Protocol::Drawn => { "a panel of " (terms.mediation.panel_size) " drawn from " (terms.mediation.mediators.len()) ", " (terms.mediation.quorum) " votes decide" }
                    } }
                    dt { "Price" } dd { (grouped(&terms.pricing.price.to_string())) @if terms.pricing.metered { " an instruction, at most " (grouped(&terms.pricing.payment_collateral.to_string())) } }
                    dt { "At stake" } dd { (grouped(&terms.pricing.results_collateral.to_string())) " by the provider" }
                    @if let Some((count, price)) = &page.claim {
                        dt { "Claimed" } dd { (grouped(&count.to_string())) " instructions: " (grouped(&price.to_string())) }
                    }
                    dt { "Money in" } dd { @if terms.domain().on_chain() { "chain " (terms.domain().chain_id()) ", " (account(terms.domain().contract())) } @else { "no contract" } }
                    @if let Some(transaction) = &summary.transaction { dt { "Transaction" } dd { code title=(transaction) { (short(transaction)) } } }
                    @if let Some(deadline) = &summary.next_deadline { dt { "Until" } dd { (when(&deadline.at)) " (" (deadline.kind) ")" } }
                }
            }
        }
        @if !page.votes.is_empty() {
            section.card { h2 { "Verdicts" } @for vote in &page.votes { (vote_card(vote)) } }
        }
        section.card {
            h2 { "Timeline" }
            ol.timeline { @for entry in &page.timeline { (step(id, entry)) } }
        }
        section.card {
            h2 { "Check it yourself" }
            p { "The bundle holds every signed event and artifact of this deal, and the signed log's word that none is left out. It is verified offline, with nothing but the file." }
            p { a.button href={ "/api/v1/deals/" (id) "/bundle" } download={ (id) ".tribunal" } { "Download the bundle" } }
            @let store = store.map_or_else(String::new, |store| format!(" --store {}", quoted(store)));
            pre { code {
                "tribunal bundle verify " (id) ".tribunal\n"
                "tribunal audit " (id) " --reverify" (store) "\n"
                "tribunal deals show " (id) (store)
            } }
            p.dim { "As data: " a href={ "/api/v1/deals/" (id) } { "deal" } ", " a href={ "/api/v1/deals/" (id) "/events" } { "signed events" } ", " a href={ "/api/v1/proofs/head?deal_id=" (id) } { "proof that none is left out" } ", " a href="/api/v1/checkpoint" { "signed checkpoint" } "." }
        }
    }
}

fn headline(page: &DealPage) -> String {
    match page.deal.outcome() {
        Some(Outcome::Accepted) => "The client accepted the result".into(),
        Some(Outcome::Valid) => "The result is right: the provider is paid".into(),
        Some(Outcome::Invalid) => "The result is wrong: the provider is slashed".into(),
        Some(Outcome::Inconclusive) => "Nobody could tell: everyone is refunded, less part of the fee".into(),
        Some(Outcome::AgreeTimeout) => "Nobody agreed in time".into(),
        Some(Outcome::SubmitTimeout) => "The provider submitted no result in time".into(),
        Some(Outcome::JudgeTimeout) => "The client said nothing in time: the provider is paid".into(),
        Some(Outcome::MediateTimeout) => "The mediators stayed silent: everyone else is refunded".into(),
        Some(Outcome::Withdrawn) => "Both parties withdrew".into(),
        Some(Outcome::Unspecified) | None => match page.deal.phase() {
            Phase::Negotiating { .. } => "Proposed; the other party has not agreed yet".into(),
            Phase::Agreed { .. } => "Agreed; the provider is at work".into(),
            Phase::ResultSubmitted { .. } => "The result is in; the client may accept or dispute it".into(),
            Phase::Disputed { .. } => "Disputed; the mediators are at work".into(),
            Phase::Decided(_) | Phase::Settled { .. } => "Decided".into(),
        },
    }
}

/// The most telling sentence: what a vote for the outcome says, else what the client said.
fn why(page: &DealPage) -> Option<String> {
    let outcome = page.summary.outcome;
    let deciding = page.votes.iter().rev().find(|vote| vote.verdict == outcome);
    let detail = deciding.and_then(|vote| vote.report.as_ref()?["reason"]["detail"].as_str());
    detail
        .filter(|detail| !detail.is_empty())
        .map(str::to_owned)
        .or_else(|| page.dispute.as_ref().filter(|it| !it.is_empty()).map(|it| format!("The client: “{it}”")))
}

fn payouts(page: &DealPage) -> Markup {
    let terms = page.deal.terms();
    let settled = &page.summary.payouts;
    let expected: Vec<PayoutView>;
    let (rows, done) = match view::expected_settlement(&page.deal) {
        Some(settlement) if settled.is_empty() => {
            expected = settlement.payouts().iter().map(PayoutView::from).collect();
            (&expected, false)
        }
        _ => (settled, true),
    };
    html! {
        @if rows.is_empty() {
            p.dim { @if page.deal.is_settled() { "No money was locked, none moved." } @else { "Not decided yet." } }
        } @else {
            @if !done { p.dim { "Decided, not paid out yet; the rule gives:" } }
            table.money {
                thead { tr { th { "" } th.n { "locked" } th.n { "out" } th.n { "net" } } }
                tbody { @for row in rows { tr {
                    td { (row.role) div.dim { (account(row.account)) } }
                    td.n { (grouped(&row.locked.to_string())) }
                    td.n { (grouped(&row.paid.to_string())) }
                    td.n.plus[row.net.starts_with('+')].minus[row.net.starts_with('-')] { (grouped(&row.net)) }
                } } }
            }
            @for sentence in slashed(page, rows) { p.slashed { (sentence) } }
            @for mediator in &page.silent {
                p.slashed { "Mediator " (account(*mediator)) " stayed silent: up to " (grouped(&terms.mediation.silence_slash.to_string())) " of its bond is slashed." }
            }
        }
        @if done && rows.is_empty() { @for mediator in &page.silent { p.slashed { "Mediator " (account(*mediator)) " stayed silent." } } }
    }
}

fn slashed(page: &DealPage, rows: &[PayoutView]) -> Vec<String> {
    let lost = |role: &str| {
        let row = rows.iter().find(|row| row.role == role)?;
        row.net.strip_prefix('-').map(grouped)
    };
    let sentence = match page.deal.outcome() {
        Some(Outcome::Invalid) => lost("provider").map(|lost| format!("The provider is slashed: it loses {lost}.")),
        Some(Outcome::SubmitTimeout) => {
            lost("provider").map(|lost| format!("The provider loses {lost} for its silence."))
        }
        Some(Outcome::JudgeTimeout) => {
            let judge = page.deal.terms().pricing.judge_collateral;
            (!judge.is_zero()).then(|| format!("The client loses {} for its silence.", grouped(&judge.to_string())))
        }
        _ => None,
    };
    sentence.into_iter().collect()
}

pub(super) fn step(id: &DealId, entry: &TimelineEntry) -> Markup {
    let (role, address) = entry.by.split_once(' ').unwrap_or((&entry.by, ""));
    html! {
        li class=(role) {
            div.line {
                span.kind { (entry.kind.replace('_', " ")) }
                span.dim { (when(&entry.at)) " · " a href={ "/deals/" (id) "?at=" (entry.position) } title="the deal as it stood here" { "log " (entry.position) } }
            }
            div { b { (role) } " " @if let Ok(address) = address.parse() { (account(address)) " " } (entry.what) }
            details { summary { "signed event" } p.mono.wrap.dim { "event " (entry.event_id) br; "link " (entry.link) br; "signer " (address) } }
        }
    }
}

fn vote_card(vote: &read::VoteView) -> Markup {
    let report = vote.report.as_ref();
    let detail = report.and_then(|report| report["reason"]["detail"].as_str());
    let evidence = report.map(|report| &report["evidence"]).and_then(Value::as_object);
    html! {
        article.vote {
            div.line {
                span { span class={ "badge " (vote.verdict) } { (vote.verdict) } " " span.code { (vote.reason_code) } }
                span.dim { "round " (vote.round) " · log " (vote.position) }
            }
            p { "Mediator " @if let Ok(address) = vote.mediator.parse() { a href={ "/mediators/" (vote.mediator) } { (account(address)) } }
                @if let Some(detail) = detail.filter(|detail| !detail.is_empty()) { ": " (detail) } }
            @if let Some(evidence) = evidence {
                details {
                    summary { "evidence" }
                    dl.evidence { @for (name, value) in evidence { dt { (name) } dd.wrap { (evidence_value(value)) } } }
                }
            }
            p.mono.wrap.dim { "digest " (vote.digest) }
        }
    }
}

fn evidence_value(value: &Value) -> Markup {
    match value {
        Value::String(text) => html! { (text) },
        Value::Object(fields) if fields.values().all(Value::is_string) => html! {
            @for (name, value) in fields { div { (name) ": " span.mono { (value.as_str().unwrap_or_default()) } } }
        },
        other => html! { span.mono { (other.to_string()) } },
    }
}

fn badge(deal: &DealSummary) -> Markup {
    let word = if deal.outcome == "open" { deal.state } else { deal.outcome };
    html! { span class={ "badge " (word) } { (word) } @if deal.outcome != "open" && deal.state != "settled" { " " span.dim { "(" (deal.state) ")" } } }
}

/// The reason's code where it says more than the outcome.
fn reason(deal: &DealSummary) -> Option<&str> {
    let code = deal.reason_code.as_deref()?;
    (!code.is_empty() && code != "ok" && !deal.outcome.starts_with(code)).then_some(code)
}

/// What changed hands: the sum of what came out above what was locked.
fn money_moved(deal: &DealSummary) -> Markup {
    let gains = deal.payouts.iter().filter_map(|payout| payout.paid.checked_sub(payout.locked));
    let moved = gains.fold(Amount::ZERO, |sum, gain| sum.checked_add(gain).unwrap_or(sum));
    html! { @if deal.payouts.is_empty() { span.dim { "–" } } @else { (grouped(&moved.to_string())) } }
}

/// An account, shortened, with a colour of its own.
pub(crate) fn account(address: Address) -> Markup {
    let full = format!("{address:#x}");
    let hue = u32::from_be_bytes([address[0], address[1], address[2], address[3]]) % 360;
    html! { span.account title=(full) style={ "--hue:" (hue) } { (short(&full)) } }
}

pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(10) {
        Some((cut, _)) if text.is_ascii() && text.len() > 18 => format!("{}…{}", &text[..cut], &text[text.len() - 6..]),
        _ => text.to_owned(),
    }
}

pub(crate) fn when(rfc3339: &str) -> String {
    rfc3339.get(..19).unwrap_or(rfc3339).replace('T', " ")
}

/// Digits in groups of three.
pub(crate) fn grouped(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix(['+', '-']) {
        Some(digits) => (if number.starts_with('-') { "−" } else { "+" }, digits),
        None => ("", number),
    };
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, expected) in
            [("0", "0"), ("999", "999"), ("-1000", "−1\u{202f}000"), ("+1234567", "+1\u{202f}234\u{202f}567")]
        {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted("a/b-c.d"), "a/b-c.d");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
    }
}
