//! Only its dependency matters.
