//! The bodies of requests: only forms have one, a small one, and it is read before anybody is asked who sends it.
//!
//! Without a bound on all of them together, whoever begins many forms and finishes none fills the memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use connlog_runtime::listen::PeerAddress;
use connlog_runtime::strangers::network_of;

use crate::auth::peer;
use crate::error::ApiError;
use crate::serve::Service;

/// Largest body of a form.
const MAX_BYTES: usize = 16 << 10;
/// Forms that are read at once, 8 MiB in all, and those of one address.
const MOST: usize = 512;
const MOST_OF_ADDRESS: usize = 16;
/// How long a form may take to come.
const DEADLINE: Duration = Duration::from_secs(10);

/// The forms that are being read.
#[derive(Clone, Default)]
pub(crate) struct Forms(Arc<Mutex<Reading>>);

#[derive(Default)]
struct Reading {
    count: usize,
    of: HashMap<IpAddr, usize>,
}

/// The right to read a form, for as long as it is held.
struct Turn {
    forms: Forms,
    address: IpAddr,
}

impl Forms {
    fn take(&self, address: IpAddr) -> Option<Turn> {
        let mut reading = self.0.lock().expect("nobody panics while holding the forms");
        let of_address = reading.of.get(&address).copied().unwrap_or(0);
        if reading.count >= MOST || of_address >= MOST_OF_ADDRESS {
            return None;
        }
        reading.count += 1;
        reading.of.insert(address, of_address + 1);
        drop(reading);
        Some(Turn { forms: self.clone(), address })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut reading = self.forms.0.lock().expect("nobody panics while holding the forms");
        reading.count -= 1;
        if let Some(of_address) = reading.of.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                reading.of.remove(&self.address);
            }
        }
    }
}

/// Reads the body of a form, and lets a request go on that has it.
pub(crate) async fn read_forms(State(service): State<Service>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let refused = |cause: &'static str, error: ApiError| {
        metrics::counter!("connlog_query_refused_forms_total", "cause" => cause).increment(1);
        error.into_response()
    };
    let address = network_of(peer(request.extensions().get::<ConnectInfo<PeerAddress>>()));
    let Some(turn) = service.forms.take(address) else {
        return refused("too_many", ApiError::too_many("forms"));
    };
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(DEADLINE, to_bytes(body, MAX_BYTES)).await;
    drop(turn);
    match read {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => refused("too_large", ApiError::too_large(MAX_BYTES)),
        Err(_) => refused("too_slow", ApiError::too_slow()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_so_many_forms_and_keeps_none_from_another() {
        let forms = Forms::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let held: Vec<Turn> = (0..MOST_OF_ADDRESS).map(|_| forms.take(one).unwrap()).collect();
        assert!(forms.take(one).is_none());
        assert!(forms.take(other).is_some());
        drop(held);
        assert!(forms.take(one).is_some());
        assert_eq!(forms.0.lock().unwrap().of.len(), 0);
    }
}
