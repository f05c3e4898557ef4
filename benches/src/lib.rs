//! Speed and memory of `party`: stage by stage in `benches/`, and side by side with Node in the binary
//! `versus_node`, which is made of what stands here.

pub mod contest;
pub mod floor;
pub mod limit;
pub mod peers;
pub mod report;
pub mod rows;
pub mod storage;
pub mod storage_suite;
