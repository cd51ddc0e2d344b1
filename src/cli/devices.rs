//! `pipe devices`
