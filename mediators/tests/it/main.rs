//! Who is drawn, and what a panel's votes come to.

mod draw;
mod round;
