//! What the scheduler uses of `parking_lot`, under its names, over loom. No wait ends by its time here: who waits is
//! woken or waits for ever, so a wake that is lost shows as a deadlock.
#![forbid(unsafe_code)]

use std::time::Instant;

use loom::sync;

/// As `parking_lot::Mutex`.
#[derive(Debug)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Holds `value`.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// When a thread panicked while it had it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect("no thread panicked with the lock")))
    }
}

/// As `parking_lot::MutexGuard`; loom's own is handed over and back by a wait.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

const HELD: &str = "the lock is held but during a wait";

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect(HELD)
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect(HELD)
    }
}

/// As `parking_lot::Condvar`.
#[derive(Debug)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// Nobody waits yet.
    #[expect(clippy::new_without_default, reason = "as in parking_lot, but for what is not used")]
    pub fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    /// Waits until woken.
    ///
    /// # Panics
    /// When a thread panicked while it had the lock.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect(HELD);
        guard.0 = Some(self.0.wait(held).expect("no thread panicked with the lock"));
    }

    /// Waits until woken: no time passes here.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) {
        self.wait(guard);
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
