//! Requests whose questions and answers are values.

use super::{Message, Peer};
use crate::{
    error::{ApiMisuse, Error},
    feed::Codec,
};

/// A kind of request, and how its question and its answer are written. Both ends of it share one, as a constant say.
///
/// ```
/// use party::{
///     feed::Utf8,
///     peer::{Message, Method, Peer},
///     rules::{self, Denied},
/// };
///
/// const GREET: Method<Utf8, Utf8> = Method::new("greet", Utf8, Utf8);
///
/// // Who asks:
/// async fn ask(peer: &Peer) -> Result<String, party::error::Error> {
///     peer.call(&GREET, &"alice".to_owned()).await
/// }
///
/// // Who answers, in `Rules::request`:
/// fn answer(message: &Message) -> rules::Result<Message> {
///     if message.kind != GREET.kind() {
///         return Err(Denied::because("that is not answered here"));
///     }
///     let name = GREET.question(message)?;
///     Ok(GREET.answer(&format!("Hello, {name}!"))?)
/// }
///
/// let answer = answer(&Message::new("greet", "alice"))?;
/// assert_eq!(answer.value, "Hello, alice!");
/// # Ok::<(), Denied>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Method<Q, A> {
    kind: &'static str,
    question: Q,
    answer: A,
}

impl<Q: Codec, A: Codec> Method<Q, A> {
    /// The requests of this kind.
    pub const fn new(kind: &'static str, question: Q, answer: A) -> Self {
        Self { kind, question, answer }
    }

    /// The kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What a request of this kind asks.
    ///
    /// # Errors
    /// [`Error::MessageNotDecodable`]: a peer may ask anything.
    pub fn question(&self, message: &Message) -> Result<Q::Item, Error> {
        self.question.decode(message.value.clone()).map_err(|why| self.not_decodable(why))
    }

    /// The answer to a request of this kind.
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`].
    pub fn answer(&self, item: &A::Item) -> Result<Message, Error> {
        let value = self.answer.encode(item).map_err(|why| ApiMisuse::NotEncodable { why })?;
        Ok(Message::new(self.kind, value))
    }

    fn not_decodable(&self, why: String) -> Error {
        Error::MessageNotDecodable { kind: self.kind.to_owned(), why }
    }
}

impl Peer {
    /// Asks the peer something, as [`request`](Self::request) does, in values.
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`]; [`Error::MessageNotDecodable`] for what the peer answers; as
    /// [`introduce_feeds`](Self::introduce_feeds).
    pub async fn call<Q: Codec, A: Codec>(
        &self,
        method: &Method<Q, A>,
        question: &Q::Item,
    ) -> Result<A::Item, Error> {
        let value = method.question.encode(question).map_err(|why| ApiMisuse::NotEncodable { why })?;
        let answer = self.request(method.kind, value).await?;
        method.answer.decode(answer.value).map_err(|why| method.not_decodable(why))
    }
}
