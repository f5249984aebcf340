//! What the key-value store, its sessions and its locks refuse.

/// The catalogue with the errors of keys behind those that are given.
macro_rules! with_codes_of_keys {
    ($($before:tt)*) => { error_codes! {
    $($before)*
    KeyNotFound {
        code: "key-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such key.",
        hint: "`rota kv ls` lists the keys",
        why: "No key has exactly this name: it was never put, it was deleted, or it went with the session that it was bound to.\n\n\
              Names are compared byte by byte. `rota kv ls PREFIX` lists what begins alike."
    }
    RevisionMismatch {
        code: "revision-mismatch", status: Some(412), exit: exit::CONFLICT,
        title: "The key is not at the revision that was asked for.",
        hint: "read the key again, decide anew, and try with the revision that it has now",
        why: "A change that depends on a revision (`If-Match`, `If-None-Match: *`, a condition of a transaction, `rota kv cas`) is made only if \
              nobody has changed the key since. Somebody has, so nothing was done. `detail` names the revision that the key has now.\n\n\
              After an answer that got lost, this may mean that your own first try was done: the value tells."
    }
    SessionNotFound {
        code: "session-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such session any more.",
        hint: "open a new one; what was bound to the old one is gone, so take locks anew before you go on",
        why: "The session was closed, its time ran out before it was renewed, or it never was. Its keys were deleted and its locks passed on \
              at that moment: whoever held a lock under it has to stop what the lock guards."
    }
    LockHeld {
        code: "lock-held", status: Some(409), exit: exit::CONFLICT,
        title: "Another session holds the lock.",
        hint: "wait for it with `wait`, or on the command line with --wait 1m",
        why: "Somebody else holds the lock, and the request was not to wait. `detail` names the session that holds it. A lock is given back \
              when its holder releases it, or when the holder's session ends."
    }
    LockLost {
        code: "lock-lost", status: Some(412), exit: exit::CONFLICT,
        title: "The lock is not held any more.",
        hint: "stop what the lock guards; take the lock again before you go on",
        why: "The request depends on a lock that is held under a fencing token, and the lock was given back, passed on, or lost with its \
              session. Nothing was done. For `rota lock run` it means that the session could not be renewed in time or was closed, or that \
              somebody released the lock: the command was ended."
    }
    LockNotHeld {
        code: "lock-not-held", status: Some(404), exit: exit::NOT_FOUND,
        title: "Nobody holds that lock.",
        hint: "`rota lock ls` lists the locks that are held",
        why: "A lock exists as long as somebody claims it. Nobody claims this one: it is free, and whoever asks for it gets it."
    }
    NoClaim {
        code: "no-claim", status: Some(404), exit: exit::NOT_FOUND,
        title: "The session has no claim to the lock.",
        hint: "`rota lock show NAME` names the holder and those who wait",
        why: "Only who holds a lock, or waits for it, can give it back. The claim was given back before, or it belongs to another session."
    }
    } };
}
