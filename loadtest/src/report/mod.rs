//! What a measurement found, written for people (terminal, HTML) and for programs (JSON, CSV).
//!
//! All forms are made from one [`Measurement`](crate::measurement::Measurement) and nothing else, so that a
//! report can be made again from the JSON file.

pub(crate) mod chart;
pub(crate) mod csv;
mod generator;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod loads;
pub(crate) mod remarks;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod server_total;
pub(crate) mod table;
pub(crate) mod text_grid;
pub(crate) mod units;
