//! Storages that stand over another, to watch it or to get in its way.

/// The methods of [`Storage`](party::feed::storage::Storage) that do what the storage in this field does.
macro_rules! as_in {
    ($field:ident: $($method:ident),+) => {
        $($crate::common::storage::as_in!(@$method $field);)+
    };
    (@read $field:ident) => {
        fn read(
            &self,
            keys: Vec<::party::feed::storage::Key>,
        ) -> ::party::feed::storage::Completion<Vec<Option<::bytes::Bytes>>> {
            self.$field.read(keys)
        }
    };
    (@records $field:ident) => {
        fn records(
            &self,
            prefix: Vec<u8>,
        ) -> ::party::feed::storage::Completion<Vec<(Vec<u8>, ::bytes::Bytes)>> {
            self.$field.records(prefix)
        }
    };
    (@commit $field:ident) => {
        fn commit(
            &self,
            writes: Vec<::party::feed::storage::Write>,
        ) -> ::party::feed::storage::Completion<()> {
            self.$field.commit(writes)
        }
    };
    (@snapshot $field:ident) => {
        fn snapshot(
            &self,
        ) -> ::party::feed::storage::Completion<::std::sync::Arc<dyn ::party::feed::storage::Snapshot>> {
            self.$field.snapshot()
        }
    };
    (@close $field:ident) => {
        fn close(&self) -> ::party::feed::storage::Completion<()> {
            self.$field.close()
        }
    };
}
pub(crate) use as_in;
