//! The bodies of the fuzz targets. A body takes any bytes and panics if something is wrong; the targets in
//! `fuzz/` call it, and so do the tests, with random bytes and with the corpus.

pub mod mux;
