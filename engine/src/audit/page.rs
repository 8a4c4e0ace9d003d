//! The report for people: one HTML file that needs nothing else, is read on a screen or on paper, and says how to check it.
//!
//! **Invariant:** nothing is loaded from anywhere, nothing runs, and everything from outside is escaped.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tribunal_events::{Amount, DealId, Timestamp};

use super::{AuditReport, Change, Discrepancy, Note, Timeline, timeline};
use crate::{
    http::page::{STYLE as BASE, account, grouped, quoted, short, when},
    store::{Store, StoreFault},
    view::{DealSummary, PayoutView},
};

/// Deals in the table at most.
pub const DEALS_SHOWN_MAX: usize = 1_000;
/// Deals shown from first word to last at most.
pub const DETAILS_SHOWN_MAX: usize = 100;
/// Events of one deal that are shown at most, beside those with findings.
const EVENTS_SHOWN_MAX: usize = 200;
/// Rows of any other list at most.
const ROWS_MAX: usize = 200;

const STYLE: &str = include_str!("page.css");
/// Nothing may be loaded and nothing may run, should anything ever slip through.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Notes that say that something was not checked.
const UNCHECKED: [&str; 4] = ["not-checkable", "not-replayed", "other-chain", "pending"];

/// What the page says beside the report.
#[derive(Clone, Debug, Default)]
pub struct PageOptions {
    /// The store, as commands name it.
    pub store: String,
    /// Folders with artifacts, likewise.
    pub artifacts: Vec<String>,
    /// The policy's file, where there was one.
    pub policy: Option<String>,
    /// When the audit was made.
    pub made_at: Timestamp,
}

/// The report as a page.
///
/// # Errors
/// Where the disk fails.
pub fn page(store: &Store, report: &AuditReport, options: &PageOptions) -> Result<String, StoreFault> {
    let chosen = chosen(store, report)?;
    let mut shown = Vec::new();
    for deal_id in chosen.ids.iter().take(DEALS_SHOWN_MAX) {
        let most = if shown.len() < DETAILS_SHOWN_MAX { EVENTS_SHOWN_MAX } else { 0 };
        let findings = (&report.discrepancies[..], &report.notes[..]);
        let timeline = timeline(store, deal_id, report.at, findings, most)?;
        if timeline.terms.is_some() || !timeline.entries.is_empty() || timeline.unreadable.is_some() {
            shown.push(timeline);
        }
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "Audit of " (options.store) " · " (verdict(report)) }
                style { (PreEscaped(BASE)) (PreEscaped(STYLE)) }
            }
            body {
                header.top { span.brand { "Tribunal" } span.dim { "Audit report" } }
                main {
                    (seal(report, options))
                    (checked(report))
                    (unchecked(report))
                    (discrepancies(report))
                    (what_if(report, options))
                    (deals(report, &shown, chosen.all))
                    @for timeline in shown.iter().take(DETAILS_SHOWN_MAX) { (deal(report, timeline)) }
                    (yourself(report, options))
                }
                footer { "Made by tribunal " (env!("CARGO_PKG_VERSION")) ". Times are UTC. This file loads nothing and runs nothing; it can be printed, and kept." }
            }
        }
    };
    Ok(page.into_string())
}

/// Deals in the order in which they are shown, and how many there are.
struct Chosen {
    ids: Vec<DealId>,
    all: u64,
}

/// Those with findings first, then those that a policy would change, then the newest.
fn chosen(store: &Store, report: &AuditReport) -> Result<Chosen, StoreFault> {
    let mut ids = Vec::new();
    let mut known = BTreeSet::new();
    let found = report.discrepancies.iter().filter_map(|it| it.deal_id);
    let changed = report.against.iter().flat_map(|against| against.changed.iter().map(|it| it.deal_id));
    let noted = report.notes.iter().filter_map(|it| it.deal_id);
    for deal_id in found.chain(changed).chain(noted) {
        if known.insert(deal_id) {
            ids.push(deal_id);
        }
    }
    if let Some(asked) = &report.options.deals {
        ids.extend(asked.iter().copied().filter(|it| known.insert(*it) && !report.unknown.contains(it)));
        return Ok(Chosen { ids, all: report.deals });
    }
    // The newest, as many as are shown: the smallest position of those kept is on top.
    let mut newest = BinaryHeap::new();
    for entry in store.deals() {
        let (deal_id, head) = match entry {
            Ok(entry) => entry,
            Err(StoreFault::Damaged { .. }) => break,
            Err(fault) => return Err(fault),
        };
        if !known.contains(&deal_id) {
            newest.push((std::cmp::Reverse(head.last_position), deal_id));
        }
        if newest.len() > DEALS_SHOWN_MAX {
            newest.pop();
        }
    }
    // In order of the reversed position: the newest first.
    ids.extend(newest.into_sorted_vec().into_iter().map(|(_, deal_id)| deal_id));
    Ok(Chosen { ids, all: report.deals })
}

fn verdict(report: &AuditReport) -> String {
    match report.discrepancy_count {
        0 => "clean".into(),
        1 => "1 discrepancy".into(),
        count => format!("{} discrepancies", grouped(&count.to_string())),
    }
}

fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn seal(report: &AuditReport, options: &PageOptions) -> Markup {
    let unchecked = report.notes.iter().filter(|it| UNCHECKED.contains(&it.code)).count();
    let tone = if report.is_clean() { "good" } else { "bad" };
    html! {
        section.card.seal.bad[!report.is_clean()] {
            span class={ "badge " (tone) } { @if report.is_clean() { "Clean" } @else { (verdict(report)) } }
            h1 { @if report.is_clean() { "Everything that was checked fits" } @else { "The record does not fit the rules" } }
            p.lead {
                (count(report.records)) " records of " (count(report.deals)) @if report.deals == 1 { " deal" } @else { " deals" }
                " in " code { (options.store) } ", "
                @if let Some(at) = report.at { "as they stood at log position " (count(at)) }
                @else { "up to log position " (count(report.log_end)) }
                @if let Some(at) = &report.log_end_at { ", recorded " (when(at)) }
                "; audited " (when(&options.made_at.to_string())) "."
            }
            @if unchecked > 0 { p.lead { (count(unchecked as u64)) @if unchecked == 1 { " thing" } @else { " things" } " could not be checked; see below." } }
            @for deal_id in &report.unknown { p.slashed { "There is no deal " span.mono { (deal_id) } " in this store." } }
        }
    }
}

fn fact(what: &str, number: &str, how: &Markup) -> Markup {
    html! { tr { td { (what) } td.n { (number) } td { (how) } } }
}

fn left(what: &str, how: &str) -> Markup {
    html! { tr.off { td { (what) } td.n { "–" } td { "not asked for: " code { (how) } } } }
}

fn checked(report: &AuditReport) -> Markup {
    let all = report.options.deals.is_none();
    html! {
        section.card {
            h2 { "What was checked" }
            table.facts {
                tbody {
                    (fact("Records", &count(report.records), &html! { "frame, place, event id and hash chain computed again" }))
                    (fact("Signatures", &count(report.signatures), &html! { "recovered from the bytes as sent, and held against who may say what" }))
                    (fact("Deals", &count(report.deals), &html! { "replayed by the rules: each step, deadline, draw, vote, payout and effect" }))
                    @if all { (fact("The log as a whole", &count(report.log_end), &html! { "positions without a gap, times that never go back, every row of the store" })) }
                    @else { (left("The log as a whole", "--all")) }
                    @if report.options.reverify { (fact("Results verified again", &count(report.reverified), &html! { (count(report.votes_confirmed)) " votes confirmed by running the verifiers today" })) }
                    @else { (left("Results verified again", "--reverify")) }
                    @if let Some(chain) = &report.chain {
                        (fact("Transactions on the chain", &count(chain.transactions), &html! { "of " (count(chain.deals)) " deals on chain " (chain.chain_id) " up to block " (count(chain.block)) ", by " (chain.node) "; " (count(chain.left_out)) " deals left out" }))
                        @for it in &chain.holdings {
                            (fact("Held by the escrow", &grouped(&it.holds.to_string()), &html! { span.mono { (format!("{:#x}", it.escrow)) } ": " (grouped(&it.locked.to_string())) " locked, " (grouped(&it.balances.to_string())) " in balances" }))
                        }
                    } @else { (left("Transactions on the chain", "--chain")) }
                }
            }
            h2 { "Outcomes" }
            p { @for (word, number) in &report.outcomes { span class={ "badge " (word) } { (count(*number)) " " (word) } " " } @if report.outcomes.is_empty() { span.dim { "no deals" } } }
        }
    }
}

fn unchecked(report: &AuditReport) -> Markup {
    let (unchecked, other): (Vec<_>, Vec<_>) = report.notes.iter().partition(|it| UNCHECKED.contains(&it.code));
    html! {
        @if !unchecked.is_empty() { section.card { h2 { "What could not be checked" } (by_code(&unchecked)) } }
        @if !other.is_empty() { section.card { h2 { "Worth knowing" } (by_code(&other)) } }
    }
}

fn by_code(notes: &[&Note]) -> Markup {
    let mut codes: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
    for note in notes {
        codes.entry(note.code).or_default().push(note);
    }
    let rows = ROWS_MAX / codes.len().max(1);
    html! {
        @for (code, notes) in codes {
            p { span.code { (code) } " " (count(notes.len() as u64)) }
            ul.codes {
                @for note in notes.iter().take(rows) { li { (place(note.deal_id, note.position)) ": " (note.text) } }
                @if notes.len() > rows { li.dim { "and " (count((notes.len() - rows) as u64)) " more" } }
            }
        }
    }
}

fn place(deal_id: Option<DealId>, position: Option<u64>) -> Markup {
    html! {
        @match deal_id {
            Some(deal_id) => { "deal " a.id href={ "#" (deal_id) } { (short(&deal_id.to_string())) } }
            None => { "the store" }
        }
        @if let Some(position) = position { ", log " (position) }
    }
}

fn discrepancies(report: &AuditReport) -> Markup {
    html! {
        @if !report.is_clean() {
            section.card {
                h2 { "Discrepancies" }
                @for it in report.discrepancies.iter().take(ROWS_MAX) { (finding(it, true)) }
                @let listed = report.discrepancies.len().min(ROWS_MAX) as u64;
                @if report.discrepancy_count > listed { p.dim { "The first " (count(listed)) " of " (count(report.discrepancy_count)) "; " code { "tribunal --json audit" } " lists more." } }
            }
        }
    }
}

fn finding(it: &Discrepancy, with_place: bool) -> Markup {
    html! {
        div.finding {
            b { (it.code) } @if with_place { " · " (place(it.deal_id, it.position)) @if let Some(version) = it.version { ", version " (version) } }
            dl { dt { "expected" } dd { (it.expected) } dt { "found" } dd { (it.found) } }
        }
    }
}

fn what_if(report: &AuditReport, options: &PageOptions) -> Markup {
    let Some(against) = &report.against else { return html! {} };
    html! {
        section.card {
            h2 { "Under another policy" }
            p {
                (count(against.deals)) " deals compared with " @if let Some(policy) = &options.policy { code { (policy) } " " } "(" span.mono.wrap { (against.policy) } "): "
                b { (count(against.changed_count)) " would differ" } ", " (count(against.not_comparable_count)) " cannot be compared, " (count(against.open)) " have no outcome yet. The record itself stands; this is no discrepancy."
            }
            @if !against.changed.is_empty() {
                table.deals.what-if-table {
                    thead { tr { th { "Deal" } th { "Recorded" } th { "Under the policy" } th { "Why" } } }
                    tbody { @for it in against.changed.iter().take(ROWS_MAX) { tr {
                        td { a.id href={ "#" (it.deal_id) } { (short(&it.deal_id.to_string())) } }
                        td { span class={ "badge " (it.recorded.outcome) } { (it.recorded.outcome) } }
                        td { span class={ "badge " (it.policy.outcome) } { (it.policy.outcome) } @if !it.verdict_differs { div.dim { "other money" } } }
                        td { (it.why) }
                    } } }
                }
                @if against.changed_count > ROWS_MAX as u64 { p.dim { "The first " (ROWS_MAX) " of " (count(against.changed_count)) "." } }
            }
            @if !against.not_comparable.is_empty() {
                p { "Not comparable:" }
                ul.codes {
                    @for it in against.not_comparable.iter().take(ROWS_MAX) { li { (place(Some(it.deal_id), None)) ": " (it.why) } }
                    @if against.not_comparable_count > ROWS_MAX as u64 { li.dim { "and " (count(against.not_comparable_count - ROWS_MAX as u64)) " more" } }
                }
            }
        }
    }
}

fn deals(report: &AuditReport, shown: &[Timeline], all: u64) -> Markup {
    let mut findings: BTreeMap<DealId, u64> = BTreeMap::new();
    for deal_id in report.discrepancies.iter().filter_map(|it| it.deal_id) {
        *findings.entry(deal_id).or_default() += 1;
    }
    html! {
        section.card {
            h2 { "Deals" }
            @if all > shown.len() as u64 || shown.len() > DETAILS_SHOWN_MAX {
                p.dim { (count(all)) " deals were audited. " @if all > shown.len() as u64 { "The table has " (count(shown.len() as u64)) " of them; " } "details follow of " (count(shown.len().min(DETAILS_SHOWN_MAX) as u64)) ": those with findings first, then the newest." }
            }
            table.deals {
                thead { tr { th { "Outcome" } th { "Deal" } th { "Client → provider" } th.n { "Money moved" } th.n { "Last event" } th.n { "Findings" } } }
                tbody { @for (index, timeline) in shown.iter().enumerate() { tr {
                    td { (badge(timeline.summary.as_ref())) }
                    td { @if index < DETAILS_SHOWN_MAX { a.id href={ "#" (timeline.deal_id) } { (short(&timeline.deal_id.to_string())) } } @else { span.id title=(timeline.deal_id) { (short(&timeline.deal_id.to_string())) } } }
                    td.parties { @if let Some(terms) = &timeline.terms { (account(terms.client)) span.dim { " → " } (account(terms.provider)) } }
                    td.n { (moved(timeline.summary.as_ref())) }
                    td.n.dim { @if let Some(summary) = &timeline.summary { (when(&summary.updated_at)) } }
                    td.n { @match findings.get(&timeline.deal_id) { Some(number) => { span.badge.bad { (number) } } None => { span.dim { "none" } } } }
                } } }
            }
        }
    }
}

fn badge(summary: Option<&DealSummary>) -> Markup {
    let Some(deal) = summary else { return html! { span.badge.soft { "unreadable" } } };
    let word = if deal.outcome == "open" { deal.state } else { deal.outcome };
    html! { span class={ "badge " (word) } { (word) } @if deal.outcome != "open" && deal.state != "settled" { " " span.dim { "(" (deal.state) ")" } } }
}

fn moved(summary: Option<&DealSummary>) -> Markup {
    let payouts = summary.map_or(&[][..], |deal| &deal.payouts);
    let gains = payouts.iter().filter_map(|payout| payout.paid.checked_sub(payout.locked));
    let sum = gains.fold(Amount::ZERO, |sum, gain| sum.checked_add(gain).unwrap_or(sum));
    html! { @if payouts.is_empty() { span.dim { "–" } } @else { (grouped(&sum.to_string())) } }
}

fn money(rows: &[PayoutView]) -> Markup {
    html! {
        table.money {
            thead { tr { th { "" } th.n { "locked" } th.n { "out" } th.n { "net" } } }
            tbody { @for row in rows { tr {
                td { (row.role) div.dim { (account(row.account)) } }
                td.n { (grouped(&row.locked.to_string())) }
                td.n { (grouped(&row.paid.to_string())) }
                td.n.plus[row.net.starts_with('+')].minus[row.net.starts_with('-')] { (grouped(&row.net)) }
            } } }
        }
    }
}

fn deal(report: &AuditReport, it: &Timeline) -> Markup {
    let change = report.against.as_ref().and_then(|against| against.changed.iter().find(|c| c.deal_id == it.deal_id));
    html! {
        section.card.deal id=(it.deal_id) {
            h3 { (badge(it.summary.as_ref())) " Deal " (short(&it.deal_id.to_string())) }
            p.mono.dim.wrap { (it.deal_id) }
            @for finding_ in &it.discrepancies { (finding(finding_, true)) }
            @for note in &it.notes { p.note { (note.text) " " span.code { (note.code) } } }
            @if let Some(change) = change { (changed(change)) }
            div.sides {
                @if let Some(terms) = &it.terms { dl {
                    dt { "Client" } dd.mono.wrap { (format!("{:#x}", terms.client)) }
                    dt { "Provider" } dd.mono.wrap { (format!("{:#x}", terms.provider)) }
                    dt { "Operator" } dd.mono.wrap { (format!("{:#x}", terms.operator)) }
                    dt { "Price" } dd { (grouped(&terms.pricing.price.to_string())) @if terms.pricing.metered { " an instruction, at most " (grouped(&terms.pricing.payment_collateral.to_string())) } }
                    dt { "At stake" } dd { (grouped(&terms.pricing.results_collateral.to_string())) }
                    dt { "Money in" } dd { @if terms.domain().on_chain() { "chain " (terms.domain().chain_id()) ", " (account(terms.domain().contract())) } @else { "no contract" } }
                    @if let Some(summary) = &it.summary {
                        @if let Some(code) = &summary.reason_code { dt { "Reason" } dd { (code) } }
                        @if let Some(transaction) = &summary.transaction { dt { "Transaction" } dd.mono.wrap { (transaction) } }
                    }
                } }
                @if let Some(summary) = &it.summary { @if !summary.payouts.is_empty() { div { (money(&summary.payouts)) } } }
            }
            ol.timeline { @for entry in &it.entries { (step(entry)) } }
            @if it.left_out > 0 { p.dim { (count(it.left_out)) " further events without findings are not shown." } }
            @if let Some(why) = &it.unreadable { div.finding { b { "unreadable" } " The store cannot read what follows: " (why) } }
        }
    }
}

fn step(entry: &super::Entry) -> Markup {
    html! {
        li class={ (entry.role) @if !entry.discrepancies.is_empty() { " wrong" } } {
            div.line {
                span.kind { @if entry.kind.is_empty() { "unreadable" } @else { (entry.kind.replace('_', " ")) } }
                span.dim { (when(&entry.at.to_string())) " · log " (entry.position) " · version " (entry.version) }
            }
            div { b { (entry.role) } " " (account(entry.by)) " " (entry.what) }
            div.after {
                @if let Some(state) = entry.state { "→ " (state) }
                @if let Some(deadline) = &entry.deadline { "; time to " (deadline.kind) " until " (when(&deadline.at)) }
                " · event " span.mono title=(entry.event_id) { (short(&entry.event_id)) }
            }
            @for it in &entry.discrepancies { (finding(it, false)) }
            @for note in &entry.notes { p.note { (note.text) " " span.code { (note.code) } } }
        }
    }
}

fn changed(change: &Change) -> Markup {
    html! {
        div.what-if {
            p { b { "Under the other policy" } @if change.verdict_differs { " " (change.recorded.outcome) " → " (change.policy.outcome) } ": " (change.why) "." }
            @if change.payouts_differ { div.two {
                div { span.dim { "recorded" } (money(&change.recorded.payouts)) }
                div { span.dim { "under the policy" } (money(&change.policy.payouts)) }
            } }
        }
    }
}

fn yourself(report: &AuditReport, options: &PageOptions) -> Markup {
    let store = quoted(&options.store);
    let artifacts: String = options.artifacts.iter().map(|folder| format!(" --artifacts {}", quoted(folder))).collect();
    let scope = match &report.options.deals {
        None => "--all".to_owned(),
        Some(ids) => ids.iter().take(ROWS_MAX).map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let at = report.at.map_or_else(String::new, |at| format!(" --at {at}"));
    let policy = options.policy.as_ref().filter(|_| report.against.is_some());
    let against = policy.map_or_else(String::new, |policy| format!(" --against {}", quoted(policy)));
    html! {
        section.card {
            h2 { "Check it yourself" }
            p { "Whoever has a copy of the store comes to the same report: nothing here rests on the word of the program that wrote the record." }
            pre { code {
                "# this audit again, and the verifiers, too\n"
                "tribunal audit " (scope) " --store " (store) " --reverify" (artifacts) (at) (against) "\n"
                "# the machine-readable report\n"
                "tribunal --json audit " (scope) " --store " (store) (at) "\n"
                "# one deal as a file that is verified offline\n"
                "tribunal bundle export DEAL -o case.tribunal" (artifacts) " --store " (store) "\n"
                "tribunal bundle verify case.tribunal"
            } }
        }
    }
}
