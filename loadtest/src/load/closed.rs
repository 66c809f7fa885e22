//! A closed loop: each connection sends its next request when the last one is answered.

use std::rc::Rc;

use super::lane::Lane;
use super::slot::Slot;
use crate::transport::Connection;

/// Begins a task for each of `connections`.
pub(super) fn begin(lane: &Rc<Lane>, connections: Vec<Connection>) {
    for connection in connections {
        lane.begin(|slot| send(Rc::clone(lane), slot, connection));
    }
}

async fn send(lane: Rc<Lane>, slot: Rc<Slot>, mut connection: Connection) {
    let mut now = lane.clock.now();
    while now < lane.window.close && !lane.over.get() && lane.spend(now) {
        let Some(freed) = lane.perform(&slot, &mut connection, (now, now, now)).await else { return };
        now = freed.ready;
    }
}
