//! Peers that only give, only take, or neither.

use super::{
    model::Model,
    pair::{End, Pair},
};
use crate::{
    feed::local::Local as _,
    replication::{
        Options,
        messages::{Message, Sync},
    },
};

fn last_sync(end: &End<Model>) -> Sync {
    let syncs = end
        .sent
        .iter()
        .filter_map(|message| if let Message::Sync(sync) = message { Some(*sync) } else { None });
    syncs.last().unwrap()
}

//= protocol-spec/07-replication.md#sync-0
#[test]
fn a_side_asks_and_answers_as_it_was_told_to_and_says_so() {
    for bits in 0..32_u8 {
        let role = |n: u8| Options {
            live: bits & 16 == 0,
            download: bits & (1 << n) != 0,
            upload: bits & (2 << n) != 0,
            ..Options::default()
        };
        let options = [role(0), role(2)];
        let mut pair = Pair::new([Model::writer(50), Model::reader()], options);
        pair.run().unwrap();
        let flows = options[0].upload && options[1].download;
        let [writer, reader] = &pair.ends;
        assert_eq!(reader.status().counters.sent.request > 0, flows, "{options:?}");
        assert_eq!(reader.feed.contiguous_length(), if flows { 50 } else { 0 }, "{options:?}");
        for (end, options) in pair.ends.iter().zip(&options) {
            let sync = last_sync(end);
            assert_eq!(sync.uploading, options.upload);
            // A finite reader is done, and an idle Node peer closes the channel then.
            assert_eq!(sync.downloading, options.download && options.live, "{options:?}");
            let status = end.status();
            assert!(status.in_sync && status.waiting == 0 && status.serving == 0, "{options:?}: {status:?}");
            assert_eq!((status.counters.refused_by_us, status.counters.refused_by_remote), (0, 0));
            assert_eq!(status.counters.sent.total(), end.sent.len() as u64);
        }
        // What one side has counted as sent, the other has counted as received.
        assert_eq!(writer.status().counters.sent, reader.status().counters.received);
        assert_eq!(reader.status().counters.sent, writer.status().counters.received);
        assert!(reader.feed.length < 50 || writer.status().remote_in_sync, "{options:?}");
    }
}
