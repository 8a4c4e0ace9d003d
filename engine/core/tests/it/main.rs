//! The deal's rules, told by what actors of a deal say and what comes of it.

mod deadlines;
mod properties;
mod rejections;
mod reorganisations;
mod scene;
mod settlement;
mod transitions;
