//! What a supervisor is told that started this process and listens, such as systemd with `Type=notify`.

use sd_notify::NotifyState;

/// Every listener serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The process is about to end in order.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Nothing happens where `NOTIFY_SOCKET` does not say that somebody listens.
fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the supervisor could not be told");
    }
}
