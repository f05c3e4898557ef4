//! The storage on disk: what it keeps, whatever befalls the process, the disk and the files.
#![cfg(feature = "disk")]

#[path = "../common/mod.rs"]
mod common;

#[cfg(unix)]
mod crash;
mod damage;
#[cfg(target_os = "linux")]
mod full;
mod many;
mod model;
#[cfg(target_os = "linux")]
mod space;
mod storage;
mod suspend;
