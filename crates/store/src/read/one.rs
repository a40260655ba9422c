//! One entry, by its id.

use uuid::Uuid;

use super::entry::Entry;
use super::filter::{Filter, Reach};
use super::rows::{self, Order, Place, Slice};
use super::whose;
use super::windows::{Calendar, Window};
use crate::session::begin_read;
use crate::{Store, StoreError, retry};

impl Store {
    /// The entry of that id in `reach`. What is out of reach looks like what is not there.
    pub async fn entry(&self, id: Uuid, reach: &Reach) -> Result<Option<Entry>, StoreError> {
        let mut attempt = 0;
        loop {
            match self.entry_once(id, reach).await {
                // A day may be purged between looking it up and reading it.
                Err(error) => retry::pause(attempt, error).await?,
                found => return found,
            }
            attempt += 1;
        }
    }

    async fn entry_once(&self, id: Uuid, reach: &Reach) -> Result<Option<Entry>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = Filter { organizations: reach.organizations.clone(), id: Some(id), ..Filter::default() };
        let slice = Slice { limit: 1, offset: 0, after: None };
        let calendar = Calendar::of(&transaction).await?;
        for window in calendar.window(&filter).map(Window::parts).unwrap_or_default() {
            let place = Place::Days(window, calendar.days(window));
            let found = rows::read(&transaction, &filter, place, slice, Order::FindThenSort).await?;
            if !found.is_empty() {
                return Ok(whose::entries(&transaction, &found).await?.into_iter().next());
            }
        }
        Ok(None)
    }
}
