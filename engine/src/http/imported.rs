//! The page of a deal that was imported from another marketplace.

use maud::{Markup, html};
use tribunal_events::DealId;

use super::page::{account, grouped, short, step};
use crate::import::view::Imported;

pub(super) fn one(id: &DealId, it: &Imported, at: Option<u64>) -> Markup {
    html! {
        p.crumbs { a href="/" { "Deals" } " / " (short(&id.to_string()))
            @if let Some(at) = at { " · as it stood at log position " (at) " · " a href={ "/deals/" (id) } { "now" } } }
        section.hero {
            h1 { (it.replay.state.word()) }
            p.why { "Imported from what the contracts of " (it.origin.marketplace) " said on chain " (it.origin.chain_id) "." }
            p.mono.dim.wrap { (id) }
        }
        div.grid {
            section.card {
                h2 { "What became of the money" }
                table { tbody { @for (who, role, money) in it.accounts() { tr {
                    td { (role) }
                    td { (account(who)) }
                    td.n { (money.net()) }
                    td.n.dim { @if !money.in_escrow().0.is_zero() { (grouped(&money.in_escrow().0.to_string())) " still in escrow" } }
                } } } }
                @if !it.replay.ledger.slashed.is_zero() { p { "To the owner of the token: " (grouped(&it.replay.ledger.slashed.to_string())) } }
            }
            section.card {
                h2 { "There" }
                dl {
                    dt { "Deal" } dd.wrap { (it.origin.foreign_id) }
                    dt { "Storage" } dd { (account(it.origin.storage)) }
                    dt { "Contradictions" } dd { (it.problems.len()) }
                }
            }
        }
        @if !it.notes.is_empty() || !it.problems.is_empty() {
            section.card { h2 { "What an audit says" }
                @for problem in &it.problems { p { strong { (problem.code) } ": expected " (problem.expected) ", found " (problem.found) } }
                @for note in &it.notes { p { strong { (note.code) } ": " (note.text) } }
            }
        }
        section.card {
            h2 { "Timeline" }
            ol.timeline { @for entry in &it.timeline { (step(id, entry)) } }
        }
    }
}
