//! The recorded vectors, read.
//!
//! `vectors/README.md` describes their format.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use party::{
    feed::proof::Proof,
    limits::Limits,
    replication::messages::{Data, Message},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

/// The cases of `vectors/<file>`, in order.
///
/// # Errors
/// If the file is not there, or its cases are not of type `T`.
pub fn cases<T: DeserializeOwned>(file: &str) -> Result<Vec<T>> {
    #[derive(Deserialize)]
    struct File<T> {
        cases: Vec<T>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let file: File<T> = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    Ok(file.cases)
}

/// Checks the cases of a file of which some are meant: `check` says whether it knew the case. An error gets the
/// name of its case.
///
/// # Errors
/// The first that `check` gives, or if there is no case that it knows.
pub async fn each_case<T: DeserializeOwned, F: Future<Output = Result<bool>>>(
    file: &str,
    check: impl Fn(T) -> F,
) -> Result<()> {
    #[derive(Deserialize)]
    struct Case<T> {
        name: String,
        #[serde(flatten)]
        case: T,
    }
    let mut checked = 0;
    for Case { name, case } in cases::<Case<T>>(file)? {
        checked += usize::from(check(case).await.context(name)?);
    }
    ensure!(checked > 0, "no case of this kind");
    Ok(())
}

/// A proof as a vector has it: the data message that answers request 0.
pub fn encode_proof(proof: Proof) -> Hex {
    Hex(Message::Data(Data { request: 0, proof }).encode().to_vec())
}

/// The proof that [`encode_proof`] would encode so; `None` if it is none that could come from a peer.
pub fn decode_proof(bytes: &[u8]) -> Option<Proof> {
    let payload = Bytes::copy_from_slice(bytes);
    match Message::decode(3, &payload, true, &Limits::default()) {
        Ok(Some(Message::Data(data))) => Some(data.proof),
        _ => None,
    }
}

/// Bytes that a vector gives as lower-case hexadecimal digits. They are shown as such, too.
#[derive(Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Hex {
    /// The bytes, if there are exactly `N`.
    ///
    /// # Errors
    /// If there are more or fewer.
    pub fn array<const N: usize>(&self) -> Result<[u8; N]> {
        self.0.as_slice().try_into().with_context(|| format!("{} bytes instead of {N}", self.0.len()))
    }
}

impl std::ops::Deref for Hex {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(Self(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err(D::Error::custom(format!("not hexadecimal: {text:?}"))),
        }
    }
}
