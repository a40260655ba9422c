//! One entry, by its id.

use uuid::Uuid;

use super::entry::Entry;
use super::filter::{Filter, Reach};
use super::rows::{self, Order, Slice};
use super::windows::Window;
use crate::session::begin_read;
use crate::{Store, StoreError};

impl Store {
    /// The entry of that id in `reach`. What is out of reach looks like what is not there.
    pub async fn entry(&self, id: Uuid, reach: &Reach) -> Result<Option<Entry>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = Filter { organizations: reach.organizations.clone(), id: Some(id), ..Filter::default() };
        let slice = Slice { limit: 1, offset: 0, after: None };
        for window in Window::over(&transaction, &filter).await?.map(Window::parts).unwrap_or_default() {
            let found = rows::read(&transaction, &filter, window, slice, Order::FindThenSort).await?;
            if let Some(entry) = found.into_iter().next() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
