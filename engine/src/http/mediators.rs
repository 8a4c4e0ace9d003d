//! A mediator's record: as JSON, as CSV and as a page.

use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use tribunal_events::{Address, Timestamp};

use super::{
    HttpState, Problem,
    page::{account, grouped, respond, short, sorry, when},
};
use crate::{
    accounts::{self, Accounts, Case, MediatorRecord, Standing, token_word},
    mediator::inbox::Case as InboxCase,
    moment,
    store::StoreFault,
};

/// Cases in one JSON answer at most.
const CASES_MAX: usize = 1000;
/// Cases and days on the page of a mediator, the latest; the CSV has all.
const CASES_SHOWN: usize = 200;
const DAYS_SHOWN: usize = 30;
/// Mediators on the page that lists them: those that run here, then those with most cases.
const MEDIATORS_SHOWN: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CasesQuery {
    since: Option<String>,
    limit: Option<usize>,
    offset: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SinceQuery {
    since: Option<String>,
}

fn since(text: Option<&str>) -> Result<Timestamp, Problem> {
    let Some(text) = text else { return Ok(Timestamp::default()) };
    let problem = || Problem::bad("query", format!("since is a day such as 2026-03-01 or a moment, not {text:?}"));
    moment::parse(text).ok_or_else(problem)
}

fn mediator(text: &str) -> Result<Address, Problem> {
    let problem = || Problem::bad("address", format!("an account is 0x and 40 hex digits, not {text:?}"));
    let plain = text.len() == 42 && text.starts_with("0x");
    plain.then(|| text.parse().ok()).flatten().ok_or_else(problem)
}

/// Reads the books of a mediator; one that was never on a panel is known only where it runs here.
async fn read<T: Send + 'static>(
    state: &HttpState,
    mediator: Address,
    work: impl FnOnce(&Accounts) -> T + Send + 'static,
) -> Result<T, Problem> {
    let here = state.0.mediators.contains(&mediator);
    let found = state.accounts(move |books| (here || !books.cases(mediator).is_empty()).then(|| work(books))).await?;
    found.ok_or_else(|| Problem::missing(format!("no mediator {mediator:#x} was on a panel here")))
}

/// Cases at all desks, read on a thread of their own.
async fn cases(state: &HttpState) -> Result<Vec<InboxCase>, Problem> {
    let reader = state.clone();
    state.read(move |_| Ok::<_, StoreFault>(reader.cases())).await
}

/// `GET /api/v1/inbox`: cases in which a mediator run here sits on the panel and is not done, the most urgent first.
pub(super) async fn inbox(State(state): State<HttpState>) -> Result<axum::Json<Value>, Problem> {
    let cases = cases(&state).await?;
    Ok(axum::Json(serde_json::json!({ "cases": cases })))
}

/// `GET /api/v1/mediators/{address}`
pub(super) async fn record(
    State(state): State<HttpState>,
    address: Result<Path<String>, PathRejection>,
    query: Result<Query<CasesQuery>, QueryRejection>,
) -> Result<axum::Json<Value>, Problem> {
    let (Path(address), Query(query)) = (address?, query?);
    let (mediator, since) = (mediator(&address)?, since(query.since.as_deref())?);
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(100));
    if !(1..=CASES_MAX).contains(&limit) {
        return Err(Problem::bad("query", format!("limit is 1 to {CASES_MAX}, not {limit}")));
    }
    let answer = read(&state, mediator, move |books| {
        let mut answer = serde_json::to_value(books.record(mediator, since)).expect("a record has only text keys");
        let cases = books.cases(mediator).iter().rev().filter(|case| case.opened_at >= since);
        let total = cases.clone().count();
        answer["records"] = cases.skip(offset).take(limit).map(Case::json).collect();
        let end = offset.saturating_add(limit);
        answer["next_offset"] = (end < total).then_some(end).into();
        answer
    });
    answer.await.map(axum::Json)
}

/// `GET /api/v1/mediators/{address}/record.csv`
pub(super) async fn csv(
    State(state): State<HttpState>,
    address: Result<Path<String>, PathRejection>,
    query: Result<Query<SinceQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(address), Query(query)) = (address?, query?);
    let (mediator, since) = (mediator(&address)?, since(query.since.as_deref())?);
    // Written down where nobody waits for the books.
    let cases = read(&state, mediator, move |books| {
        books.cases(mediator).iter().filter(|case| case.opened_at >= since).cloned().collect::<Vec<Case>>()
    });
    let cases = cases.await?;
    let text =
        tokio::task::spawn_blocking(move || accounts::csv(&cases)).await.map_err(|error| Problem::internal(&error))?;
    let name = format!("attachment; filename=\"{mediator:#x}.csv\"");
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, text).into_response())
}

/// `GET /mediators`
pub(super) async fn index(State(state): State<HttpState>) -> Response {
    let here = state.0.mediators.clone();
    let books = state.accounts(move |books| {
        let mut all: Vec<_> = books.mediators().filter(|mediator| !here.contains(mediator)).collect();
        all.sort_by_key(|mediator| (std::cmp::Reverse(books.cases(*mediator).len()), *mediator));
        let shown = here.iter().copied().chain(all).take(MEDIATORS_SHOWN);
        let records: Vec<_> = shown
            .map(|mediator| (mediator, here.contains(&mediator), books.record(mediator, Timestamp::default())))
            .collect();
        records
    });
    match (books.await, cases(&state).await) {
        (Ok(books), Ok(cases)) => {
            respond(StatusCode::OK, "Mediators", None, &html! { (inbox_table(&cases)) (list(&books)) })
        }
        (Err(problem), _) | (_, Err(problem)) => sorry(&problem),
    }
}

/// What is asked of the mediators that run here.
fn inbox_table(cases: &[InboxCase]) -> Markup {
    html! {
        @if !cases.is_empty() {
            h2 { "Inbox" }
            div.card { table.books {
                thead { tr { th { "Deal" } th { "Round" } th { "Asked" } th { "Until" } th.n { "Pays" } th.n { "Silence costs" } } }
                tbody { @for case in cases.iter().take(CASES_SHOWN) { tr {
                    td { a href=(format!("/deals/{}", case.deal_id)) { code { (short(&case.deal_id.to_string())) } } }
                    td { @if let Some(round) = case.round { (round) } }
                    td { (case.asks) }
                    td { @if let Some(at) = case.deadline { (when(&at.to_string())) } }
                    td.n { (grouped(&case.pays.to_string())) }
                    td.n { (grouped(&case.slash.to_string())) }
                } } }
            } }
        }
    }
}

/// `GET /mediators/{address}`
pub(super) async fn page(State(state): State<HttpState>, address: Result<Path<String>, PathRejection>) -> Response {
    let shown = async {
        let Path(address) = address?;
        let mediator = mediator(&address)?;
        let found = read(&state, mediator, move |books| {
            let cases: Vec<_> = books.cases(mediator).iter().rev().take(CASES_SHOWN).cloned().collect();
            (books.record(mediator, Timestamp::default()), cases)
        });
        found.await.map(|(record, cases)| (mediator, record, cases))
    };
    match shown.await {
        Ok((mediator, record, cases)) => {
            let title = format!("Mediator {}", short(&record.mediator));
            let here = state.0.mediators.contains(&mediator);
            respond(StatusCode::OK, &title, None, &one(mediator, &record, &cases, here))
        }
        Err(problem) => sorry(&problem),
    }
}

fn list(books: &[(Address, bool, MediatorRecord)]) -> Markup {
    html! {
        h1 { "Mediators" }
        p.lead { "Everybody who was on a panel in this log, with what that came to." }
        @if books.is_empty() {
            div.card.empty { p { "Nobody was asked to judge yet." } }
        } @else {
            div.card { table.books {
                thead { tr { th { "Mediator" } th.n { "Cases" } th.n { "Voted" } th.n { "Agreed" } th.n { "Against" } th.n { "Silent" } th.n { "Earned" } th.n { "Score" } } }
                tbody { @for (mediator, here, book) in books { tr {
                    td { a href={ "/mediators/" (book.mediator) } { (account(*mediator)) } @if *here { " " span.badge.open { "runs here" } } }
                    td.n { (book.cases) } td.n { (book.voted) } td.n { (book.agreed) } td.n { (book.disagreed) } td.n { (book.silent) }
                    td.n { (earned(book)) } td.n { (book.score) }
                } } }
            } }
        }
    }
}

fn one(mediator: Address, book: &MediatorRecord, cases: &[Case], here: bool) -> Markup {
    html! {
        p.crumbs { a href="/mediators" { "Mediators" } " / " (short(&book.mediator)) }
        section.hero {
            div { (account(mediator)) @if here { " " span.badge.open { "runs here" } } }
            h1 { @if book.cases == 0 { "No case yet" } @else { "Judged " (book.voted) " of " (book.cases) @if book.cases == 1 { " case" } @else { " cases" } } }
            @if book.silent > 0 { p.why { "Silent in " (book.silent) ": up to " (grouped(&book.slashed.to_string())) " of the bond slashed." } }
            p.mono.dim.wrap { (book.mediator) }
        }
        div.grid {
            section.card {
                h2 { "Record" }
                dl {
                    dt { "Agreed with the outcome" } dd { (book.agreed) }
                    dt { "Voted against it" } dd { (book.disagreed) }
                    dt { "Inconclusive" } dd { (book.inconclusive) }
                    dt { "No outcome to compare" } dd { (book.undecided) }
                    dt { "Silent" } dd { (book.silent) }
                    dt { "Others decided first" } dd { (book.unheard) }
                    dt { "Redrawn" } dd { (book.redrawn) }
                    dt { "Open" } dd { (book.open) }
                    dt { "Score" } dd { (book.score) ", " (book.streak) " right in a row (" (book.streak_longest) " at most)" }
                    @if let Some(at) = &book.last_vote_at { dt { "Last vote" } dd { (when(at)) } }
                }
                p.dim { "Score: one more when right, two thirds when wrong or silent." }
            }
            section.card {
                h2 { "Money" }
                dl {
                    dt { "Earned" } dd { (earned(book)) }
                    dt { "Slashed" } dd { @if !book.slashed.is_zero() { "up to " } (grouped(&book.slashed.to_string())) }
                    dt { "Gas of its deals" } dd { (grouped(&book.gas_used.to_string())) }
                }
                @if !book.days.is_empty() {
                    table.money {
                        thead { tr { th { "Day" } th { "Token" } th.n { "Cases" } th.n { "Earned" } } }
                        tbody { @for day in book.days.iter().rev().take(DAYS_SHOWN) { tr {
                            td { (day.day) } td { (token(&day.token)) } td.n { (day.cases) } td.n { (grouped(&day.earned.to_string())) }
                        } } }
                    }
                }
            }
        }
        @if !cases.is_empty() {
            section.card {
                h2 { "Cases" }
                table.books {
                    thead { tr { th { "Opened" } th { "Deal" } th { "Vote" } th { "Standing" } th { "Outcome" } th.n { "Fee" } } }
                    tbody { @for case in cases { tr {
                        td.dim { (when(&case.opened_at.to_string())) }
                        td { a.id href={ "/deals/" (case.deal_id) } { (short(&case.deal_id.to_string())) }
                            div.dim { "round " (case.round) @if case.redrawn { ", redrawn" } } }
                        td { (case.vote.map_or("–", |vote| vote.word())) @if !case.reason_code.is_empty() { div.dim { (case.reason_code) } } }
                        td { span class={ "badge " (tone(case.standing)) } { (case.standing.word()) }
                            @if !case.slash.is_zero() { div.dim { "slashed up to " (grouped(&case.slash.to_string())) } } }
                        td { (case.outcome.map_or("open", |outcome| outcome.word())) }
                        td.n { @if case.fee.is_zero() { span.dim { "–" } } @else { (grouped(&case.fee.to_string())) } @if !case.fee.is_zero() { div.dim { (token(&token_word(case.token))) } } }
                    } } }
                }
                @if book.cases > cases.len() { p.dim { "The latest " (cases.len()) " of " (book.cases) "." } }
            }
        }
        section.card {
            h2 { "As data" }
            p { a.button href={ "/api/v1/mediators/" (book.mediator) "/record.csv" } { "Download as CSV" } }
            p.dim { a href={ "/api/v1/mediators/" (book.mediator) } { "JSON" } ", or " code { "tribunal mediator earnings " (book.mediator) } }
        }
    }
}

fn earned(book: &MediatorRecord) -> Markup {
    html! {
        @if book.earned.is_empty() { span.dim { "0" } }
        @for (token_of, amount) in &book.earned { div { (grouped(&amount.to_string())) " " span.dim { (token(token_of)) } } }
    }
}

fn token(word: &str) -> Markup {
    html! { @if word == "none" { span.dim { "no token" } } @else { span.mono title=(word) { (short(word)) } } }
}

/// Which of the page's colours a standing has.
const fn tone(standing: Standing) -> &'static str {
    match standing {
        Standing::Agreed => "valid",
        Standing::Disagreed | Standing::Silent => "invalid",
        Standing::Inconclusive | Standing::Undecided | Standing::Unheard => "inconclusive",
        Standing::Open => "open",
    }
}
