//! Stores that are opened with something else in them than was written: values in memory, and files on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Once, OnceLock},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::{
    credentials::{Grant, Membership, Terms},
    error::{ApiMisuse, Error, StorageError},
    feed::{
        Feed,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::{Key, Slot, Storage, Write},
    },
    key::{FeedKey, KeyPair, PartyKey},
    members::Members,
    party_map::PartyMap,
    store::{FeedOptions, Store, StoreOptions, disk::DiskStorage},
};
use tokio::runtime::Runtime;

use super::input::{Few, Short};
use crate::scratch;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    })
}

/// A feed as it was written.
#[derive(Debug)]
struct Written {
    key: FeedKey,
    name: Option<&'static str>,
    length: u64,
    blocks: BTreeMap<u64, Bytes>,
}

impl Written {
    async fn of(feed: &Feed, name: Option<&'static str>) -> Self {
        let length = feed.info().length;
        let mut blocks = BTreeMap::new();
        for index in 0..length {
            blocks.extend(feed.get(index).await.expect("it is there").map(|block| (index, block)));
        }
        Self { key: feed.key(), name, length, blocks }
    }
}

fn founder() -> KeyPair {
    KeyPair::from_seed(&[11; 32])
}

fn party() -> PartyKey {
    PartyKey::from_bytes(*founder().public().as_bytes())
}

fn me() -> KeyPair {
    KeyPair::from_seed(&[12; 32])
}

fn options() -> StoreOptions {
    StoreOptions::default().primary_key([7; 32])
}

/// Feeds of several kinds, a party and a member: of all that a store keeps, some.
async fn fill(store: &Store) -> Vec<Written> {
    let blocks = |count: u64| {
        (0..count).map(|n| Bytes::from(vec![n as u8; (n * 61 % 300) as usize])).collect::<Vec<_>>()
    };
    let plain = store.create_feed("plain", FeedOptions::default()).await.expect("a feed");
    plain.append_batch(blocks(12)).await.expect("appends");
    plain.truncate(9).await.expect("truncates");
    plain.append_batch(blocks(4)).await.expect("appends");
    let legacy = store.create_feed("legacy", FeedOptions::default().compat(true)).await.expect("a feed");
    legacy.append_batch(blocks(5)).await.expect("appends");
    let seeded = store.create_feed("seeded", FeedOptions::default().seed([3; 32])).await.expect("a feed");
    seeded.append_batch(blocks(3)).await.expect("appends");

    // A feed of somebody else's, with gaps.
    let theirs = Store::memory_with(StoreOptions::default().primary_key([8; 32]));
    let theirs = theirs.create_feed("theirs", FeedOptions::default()).await.expect("a feed");
    theirs.append_batch(blocks(40)).await.expect("appends");
    let copy = store.feed(&theirs.key()).await.expect("a feed");
    let upgrade = Some(UpgradeRequest { start: 0, length: 40 });
    let mut wanted = vec![ProofRequest { upgrade, manifest: true, ..ProofRequest::default() }];
    wanted.extend([0, 1, 7, 22, 39].map(|index| {
        let block = Some(BlockRequest { index, nodes: if index < 32 { 5 } else { 3 } });
        ProofRequest { block, ..ProofRequest::default() }
    }));
    for request in wanted {
        let proof = theirs.prove(request, 0).await.expect("proves").expect("it is there");
        copy.ingest(vec![proof]).await.remove(0).expect("it holds");
    }

    let map = PartyMap::new(store, &me());
    map.register("all", party::rules::WholeStore::new(store.clone())).await.expect("rules");
    map.add("party", &party(), "all").await.expect("a party");
    let members = Members::open(store, &party(), &me()).await.expect("members");
    let grant = Grant::to(me().public(), Terms::everything().delegable(2));
    let membership = Membership::found(&founder(), grant, &Default::default()).expect("it is the founder's");
    members.set_membership(membership).await.expect("it holds");
    let grant = Grant::to(KeyPair::from_seed(&[13; 32]).public(), Terms::everything());
    members.grant(grant).await.expect("it may");
    members.remove(&KeyPair::from_seed(&[13; 32]).public()).await.expect("it may");
    members.saved().await.expect("memory does not fail");
    vec![
        Written::of(&plain, Some("plain")).await,
        Written::of(&legacy, Some("legacy")).await,
        Written::of(&seeded, Some("seeded")).await,
        Written::of(&copy, None).await,
    ]
}

/// Whether an error says that what is stored isn't right, or can't be read.
fn is_typed(error: &Error) -> bool {
    let Error::Storage(error) = error else { return false };
    is_damage(error)
}

fn is_damage(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Damaged { .. }
            | StorageError::Database(_)
            | StorageError::Io(_)
            | StorageError::UnknownFormat { .. }
            | StorageError::NotAStore { .. }
    )
}

/// Does with a store what is done with one. Nothing may panic, and every error says what is wrong with it.
async fn use_all(store: &Store, written: &[Written]) {
    for result in [store.list().await.map(drop), store.list_named("").await.map(drop)] {
        result.unwrap_or_else(|error| assert!(is_typed(&error), "{error}"));
    }
    let map = PartyMap::new(store, &me());
    if let Err(error) = map.register("all", party::rules::WholeStore::new(store.clone())).await {
        assert!(is_typed(&error), "{error}");
    }
    if let Err(error) = map.list().await {
        assert!(is_typed(&error), "{error}");
    }
    // Of rules that the app doesn't have it is told, whoever has named them.
    if let Err(error) = map.load("*").await {
        assert!(is_typed(&error) || matches!(error, Error::ApiMisuse(_)), "{error}");
    }
    match Members::open(store, &party(), &me()).await {
        Ok(members) => drop((members.standing(), members.members(), members.removed())),
        Err(error) => assert!(is_typed(&error), "{error}"),
    }
    for Written { key, name, .. } in written {
        if let Some(name) = name
            && let Err(error) = store.feed_by_name(name).await
        {
            assert!(is_typed(&error), "{error}");
        }
        // Somebody else's feed under the same key isn't refused: it is made anew if it was not found.
        let Ok(feed) = store.feed_by_discovery_key(&key.discovery_key()).await else { continue };
        let Some(feed) = feed else { continue };
        // That its blocks are encrypted is a bit of what is stored.
        let lacks_key = |error: &Error| matches!(error, Error::ApiMisuse(ApiMisuse::EncryptionKeyMissing(_)));
        let length = feed.info().length.min(50);
        for index in 0..=length {
            if let Err(error) = feed.get(index).await {
                assert!(is_typed(&error) || lacks_key(&error), "{error}");
            }
            let block = Some(BlockRequest { index, nodes: 0 });
            let request = ProofRequest { block, ..ProofRequest::default() };
            let proof = feed.prove(request, feed.info().fork).await;
            assert!(
                proof
                    .as_ref()
                    .err()
                    .is_none_or(|error| is_typed(error) || matches!(error, Error::PeerMisbehaved(_)))
            );
        }
        let fully = [
            feed.audit().await.map(drop),
            feed.locate(100).await.map(drop),
            feed.clear(1..2).await.map(drop),
        ];
        for result in fully {
            result.unwrap_or_else(|error| assert!(is_typed(&error), "{error}"));
        }
        if feed.info().writable
            && let Err(error) = feed.append("more").await
        {
            assert!(is_typed(&error) || lacks_key(&error), "{error}");
        }
    }
}

/// Checks that a feed is as it was written; where not, that an error says so, unless none `may` be.
async fn check(store: &Store, written: &Written, may: bool) {
    let Written { key, name, length, blocks } = written;
    let failed = |error: &Error| assert!(may && is_typed(error), "{name:?}: {error}");
    let feed = match store.feed_by_discovery_key(&key.discovery_key()).await {
        Ok(feed) => feed.unwrap_or_else(|| panic!("{name:?} is gone without a word")),
        Err(error) => return failed(&error),
    };
    assert_eq!((feed.key(), feed.info().length), (*key, *length), "{name:?}");
    for index in 0..*length {
        match feed.get(index).await {
            Ok(block) => assert_eq!(block.as_ref(), blocks.get(&index), "{name:?}: block {index}"),
            Err(error) => failed(&error),
        }
    }
    if let Some(name) = name {
        match store.feed_by_name(name).await {
            Ok(named) => assert_eq!(named.map(|feed| feed.key()), Some(*key), "{name}"),
            Err(error) => failed(&error),
        }
    }
}

// ---- values in memory --------------------------------------------------------------------------------

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    Flip(u16, u8),
    Cut(u16),
    Insert(u16, Short<'a>),
    Replace(Short<'a>),
    /// The value of another key.
    Other(u8),
    Remove,
}

impl Change<'_> {
    fn apply(&self, value: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % (value.len() + 1);
        match self {
            Self::Flip(at, bits) => {
                let at = place(*at);
                value.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits);
            }
            Self::Cut(at) => value.truncate(place(*at)),
            Self::Insert(at, bytes) => {
                let at = place(*at);
                value.splice(at..at, bytes.0.iter().copied()).for_each(drop);
            }
            Self::Replace(bytes) => *value = bytes.0.to_vec(),
            Self::Other(_) | Self::Remove => {}
        }
    }
}

struct Values {
    written: Vec<Written>,
    values: Vec<(Key, Bytes)>,
}

impl Values {
    fn get() -> &'static Self {
        static VALUES: OnceLock<Values> = OnceLock::new();
        VALUES.get_or_init(|| runtime().block_on(Self::new()))
    }

    async fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let store = Store::open_storage(storage.clone(), options()).await.expect("memory does not fail");
        let written = fill(&store).await;
        let records = storage.records(vec![]).await.expect("memory does not fail");
        let mut values: Vec<_> = records.into_iter().map(|(key, value)| (Key::Record(key), value)).collect();
        let slots = (0..10).map(Slot);
        let keys = slots.flat_map(|slot| {
            let indexed =
                (0..100).flat_map(move |n| [Key::Page(slot, n), Key::Node(slot, n), Key::Block(slot, n)]);
            std::iter::once(Key::Head(slot)).chain(indexed)
        });
        for key in keys {
            let value = storage.read(vec![key.clone()]).await.expect("memory does not fail").remove(0);
            values.extend(value.map(|value| (key, value)));
        }
        Self { written, values }
    }
}

/// Any values where a store keeps its own. Opening and reading them ends with errors that say so, and changes none. A feed of
/// which nothing was changed is as it was.
pub fn store_values(data: &[u8]) {
    let Values { written, values } = Values::get();
    let Ok(changes) = Unstructured::new(data).arbitrary::<Few<(u8, u8, Change<'_>), 6>>() else { return };
    let mut image: BTreeMap<Key, Bytes> = values.iter().cloned().collect();
    let mut changed = BTreeSet::new();
    for (high, low, change) in &changes.0 {
        let place = usize::from(u16::from_be_bytes([*high, *low])) % values.len();
        let key = &values[place].0;
        changed.insert(key.slot());
        match change {
            Change::Remove => drop(image.remove(key)),
            Change::Other(other) => {
                let value = values[(place + usize::from(*other)) % values.len()].1.clone();
                image.insert(key.clone(), value);
            }
            change => {
                let mut value = image.get(key).cloned().unwrap_or_default().to_vec();
                change.apply(&mut value);
                image.insert(key.clone(), value.into());
            }
        }
    }
    runtime().block_on(async {
        let storage = Arc::new(MemoryStorage::new());
        let puts = image.iter().map(|(key, value)| Write::Put(key.clone(), value.clone())).collect();
        storage.commit(puts).await.expect("memory does not fail");
        let store = match Store::open_storage(storage.clone(), StoreOptions::default()).await {
            Ok(store) => store,
            // Another primary key than the options say is no damage.
            Err(error) => {
                return assert!(is_typed(&error) || matches!(error, Error::ApiMisuse(_)), "{error}");
            }
        };
        if !changed.contains(&None) {
            for (written, slot) in written.iter().zip(Values::slots(values, written.len())) {
                if !changed.contains(&Some(slot)) {
                    check(&store, written, false).await;
                }
            }
        }
        // A primary key that no store vouches for is made anew if it is none.
        let is_primary = |key: &Key| matches!(key, Key::Record(key) if key.starts_with(b"primary-key"));
        for (key, value) in image.iter().filter(|(key, _)| !is_primary(key)) {
            let stored = storage.read(vec![key.clone()]).await.expect("memory does not fail").remove(0);
            assert_eq!(stored.as_ref(), Some(value), "{key:?} was changed by reading");
        }
        use_all(&store, written).await;
    });
}

impl Values {
    /// Those of the feeds, in the order in which they were made.
    fn slots(values: &[(Key, Bytes)], count: usize) -> impl Iterator<Item = Slot> {
        let heads =
            values.iter().filter_map(|(key, _)| if let Key::Head(slot) = key { Some(*slot) } else { None });
        heads.take(count)
    }
}

// ---- files -------------------------------------------------------------------------------------------

/// A file: its bytes without the zeros at the end, and its length with them. A journal is 64 MiB of them.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    length: u64,
}

struct Files {
    written: Vec<Written>,
    files: Vec<File>,
}

impl Files {
    fn get() -> &'static Self {
        static FILES: OnceLock<Files> = OnceLock::new();
        FILES.get_or_init(|| runtime().block_on(Self::new()))
    }

    /// A store with values in tables, in block files and in the journal, left as by a kill.
    async fn new() -> Self {
        let folder = folder();
        let store = Store::open_with(folder.path(), options()).await.expect("a store");
        let written = fill(&store).await;
        store.close().await;
        // Enough that all is written to tables when it is closed.
        let storage = DiskStorage::open(folder.path()).await.expect("a store");
        let key = Key::Record(b"x".to_vec());
        for n in 0..12_u32 {
            let noise: Vec<u8> =
                (0..30_000_u32).flat_map(|m| (m ^ n).wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
            storage.commit(vec![Write::Put(key.clone(), noise.into())]).await.expect("there is room");
        }
        storage.commit(vec![Write::Delete(key)]).await.expect("there is room");
        storage.close().await.expect("it closes");
        let store = Store::open_with(folder.path(), options()).await.expect("a store");
        let mut written = written;
        let last = store.create_feed("last", FeedOptions::default()).await.expect("a feed");
        last.append_batch((0..6).map(|n| vec![n; 50 * usize::from(n)].into()).collect())
            .await
            .expect("appends");
        written.push(Written::of(&last, Some("last")).await);
        // What is copied while nothing is written is what a kill would leave.
        let files = Self::read(folder.path(), folder.path());
        store.close().await;
        Self { written, files }
    }

    fn read(root: &Path, folder: &Path) -> Vec<File> {
        let mut entries: Vec<_> =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        let mut files = Vec::new();
        for path in entries {
            if path.is_dir() {
                files.extend(Self::read(root, &path));
            } else {
                let mut bytes = fs::read(&path).expect("a file");
                let length = bytes.len() as u64;
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                bytes.shrink_to_fit();
                let path = path.strip_prefix(root).expect("it is in there").to_owned();
                files.push(File { path, bytes, length });
            }
        }
        files
    }
}

fn folder() -> scratch::Folder {
    scratch::Folder::new().expect("a folder")
}

impl File {
    fn write(&self, to: &Path) {
        self.write_bytes(to, &self.bytes, self.length);
    }

    fn write_bytes(&self, to: &Path, bytes: &[u8], length: u64) {
        let path = to.join(&self.path);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        if length > bytes.len() as u64 {
            let file = fs::File::options().write(true).open(&path).expect("a file");
            file.set_len(length).expect("there is room");
        }
    }
}

/// What damaged files make the database panic over is caught by the storage's threads and becomes an error. A hook that
/// ends the process before that, as libFuzzer's does, must not see it.
fn leave_caught_panics_alone() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_caught = std::thread::current().name().is_some_and(|name| name.starts_with("party-store"));
            if !is_caught {
                hook(info);
            }
        }));
    });
}

/// One file of a store on disk that was changed. All that was written is there, or an error says that it is not; and what
/// was refused is whole again when the file is.
pub fn store_files(data: &[u8]) {
    let Files { written, files } = Files::get();
    let mut input = Unstructured::new(data);
    let Ok((which, changes)) = input.arbitrary::<(u8, Few<Change<'_>, 4>)>() else { return };
    let file = &files[usize::from(which) % files.len()];
    let mut bytes = file.bytes.clone();
    let (mut is_cut, mut is_removed) = (false, false);
    for change in &changes.0 {
        is_cut |= matches!(change, Change::Cut(_) | Change::Replace(_));
        is_removed |= matches!(change, Change::Remove);
        change.apply(&mut bytes);
    }
    // Such a store is wiped, as it was never complete.
    if bytes == b"party store, being made\n" {
        return;
    }
    leave_caught_panics_alone();
    let folder = folder();
    for other in files.iter().filter(|other| other.path != file.path) {
        other.write(folder.path());
    }
    if !is_removed {
        let length = if is_cut { 0 } else { file.length };
        file.write_bytes(folder.path(), &bytes, length);
    }
    runtime().block_on(async {
        match Store::open(folder.path()).await {
            Ok(store) => {
                for written in written {
                    check(&store, written, true).await;
                }
                use_all(&store, written).await;
                store.close().await;
            }
            Err(error) => {
                assert!(is_typed(&error), "{error}");
                file.write(folder.path());
                let store = Store::open(folder.path()).await.expect("all files are as they were");
                for written in written {
                    check(&store, written, false).await;
                }
                store.close().await;
            }
        }
    });
}
