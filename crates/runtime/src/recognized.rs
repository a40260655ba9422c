//! Who was recognized by a token, for a short while: an outage of the database does not lock anybody out at once. Once a token was
//! revoked, everybody is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

/// How long it is remembered that a token was recognized, whoever bears it.
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// Bearers of tokens, by the SHA-256 of the token. Clones share what they remember.
#[derive(Clone)]
pub struct Recognized<T> {
    bearers: Cache<Vec<u8>, T>,
    /// Tokens that were recognized when they were last looked up, within the last day.
    known: Cache<Vec<u8>, ()>,
    /// How often everybody was forgotten.
    forgotten: Arc<AtomicU64>,
}

impl<T: Clone + Send + Sync + 'static> Recognized<T> {
    /// Remembers at most `most` bearers, each for `time`.
    pub fn new(most: u64, time: Duration) -> Self {
        let bearers = Cache::builder().max_capacity(most).time_to_live(time).build();
        let known = Cache::builder().max_capacity(most).time_to_live(KNOWN_FOR).build();
        Self { bearers, known, forgotten: Arc::default() }
    }

    /// The bearer of a token, if it was recognized a short while ago.
    pub async fn get(&self, sha256: &Vec<u8>) -> Option<T> {
        self.bearers.get(sha256).await
    }

    /// Whether a token was recognized when it was last looked up, within the last day.
    pub async fn knew(&self, sha256: &Vec<u8>) -> bool {
        self.known.get(sha256).await.is_some()
    }

    /// Notes that a token would be recognized: it was made just now.
    pub async fn note(&self, sha256: Vec<u8>) {
        self.known.insert(sha256, ()).await;
    }

    /// Looks a token up, and remembers its bearer. That a token is unknown is not remembered: it may be made any moment.
    pub async fn look_up<E>(
        &self,
        sha256: Vec<u8>,
        look_up: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Option<T>, E> {
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let Some(bearer) = look_up.await? else {
            self.known.invalidate(&sha256).await;
            return Ok(None);
        };
        self.known.insert(sha256.clone(), ()).await;
        self.bearers.insert(sha256.clone(), bearer.clone()).await;
        // The token may have been revoked after it was looked up. Who forgets counts first, so one of the two removes it.
        if forgotten != self.forgotten.load(Ordering::SeqCst) {
            self.bearers.invalidate(&sha256).await;
        }
        Ok(Some(bearer))
    }

    /// Forgets all bearers: a token was revoked.
    pub fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.bearers.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn what_was_looked_up_before_a_revocation_is_not_remembered_after_it() {
        let recognized = Recognized::new(10, Duration::from_mins(1));
        let token = b"token".to_vec();
        let found = async |recognized: &Recognized<u8>| {
            let meanwhile = async {
                recognized.forget();
                Ok::<_, Infallible>(Some(1))
            };
            recognized.look_up(token.clone(), meanwhile).await.unwrap()
        };
        assert_eq!(found(&recognized).await, Some(1));
        assert_eq!(recognized.get(&token).await, None);
        assert!(recognized.knew(&token).await);
        let plain = async || recognized.look_up(token.clone(), async { Ok::<_, Infallible>(Some(2)) }).await;
        plain().await.unwrap();
        assert_eq!(recognized.get(&token).await, Some(2));
        recognized.forget();
        assert_eq!(recognized.get(&token).await, None);
        recognized.look_up(token.clone(), async { Ok::<_, Infallible>(None) }).await.unwrap();
        assert!(!recognized.knew(&token).await);
    }
}
