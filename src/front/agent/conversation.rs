//! One connection of a step to an agent: frames in, what is allowed done, frames out.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

use super::{Source, keys::Key, wait};

/// The longest message, OpenSSH's own limit.
const LONGEST: u32 = 256 * 1024;
/// How long a message may take once it has begun.
const PATIENCE: Duration = Duration::from_secs(30);

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
/// The one extension that only takes rights away: it binds a connection to the host it is used for, and keys with
/// restricted destinations are not usable without.
const SESSION_BIND: &[u8] = b"session-bind@openssh.com";

/// Answers until either side is done.
pub(super) fn hold(source: &Source, step: &UnixStream, until: &OwnedFd) {
    // Whatever goes wrong with a connection ends it, and `ssh` says that its agent is gone.
    let _ended = answer_all(source, step, until);
}

fn answer_all(source: &Source, step: &UnixStream, until: &OwnedFd) -> io::Result<()> {
    patient(step)?;
    let mut user = None;
    while let Some(request) = receive(step, until)? {
        let answer = match source {
            Source::Keys(keys) => own_answer(keys, &request),
            Source::Socket(_) if !is_allowed(&request) => vec![FAILURE],
            Source::Socket(path) => {
                let user = if let Some(user) = &user {
                    user
                } else {
                    let stream = UnixStream::connect(path)?;
                    patient(&stream)?;
                    &*user.insert(stream)
                };
                send(user, &request)?;
                // The user may be asked first, so this may take long.
                receive(user, until)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
        };
        send(step, &answer)?;
    }
    Ok(())
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// One message without its length; `None` at the end.
fn receive(mut from: &UnixStream, until: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    wait(from, until)?;
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(head);
    if length == 0 || length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn send(mut to: &UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).ok().filter(|length| *length <= LONGEST).ok_or(io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

/// May the user's agent see it?
fn is_allowed(request: &[u8]) -> bool {
    match request.split_first() {
        Some((&(REQUEST_IDENTITIES | SIGN_REQUEST), _)) => true,
        Some((&EXTENSION, rest)) => string(rest).is_some_and(|(name, _)| name == SESSION_BIND),
        _ => false,
    }
}

/// What keys of files answer.
fn own_answer(keys: &[Key], request: &[u8]) -> Vec<u8> {
    match request.split_first() {
        Some((&REQUEST_IDENTITIES, _)) => {
            let mut answer = vec![IDENTITIES_ANSWER];
            answer.extend(u32::try_from(keys.len()).unwrap_or_default().to_be_bytes());
            for key in keys {
                put(&mut answer, &key.public);
                put(&mut answer, key.comment.as_bytes());
            }
            answer
        }
        Some((&SIGN_REQUEST, rest)) => signature(keys, rest).map_or_else(
            || vec![FAILURE],
            |signature| {
                let mut answer = vec![SIGN_RESPONSE];
                put(&mut answer, &signature);
                answer
            },
        ),
        _ => vec![FAILURE],
    }
}

fn signature(keys: &[Key], request: &[u8]) -> Option<Vec<u8>> {
    let (public, rest) = string(request)?;
    let (data, rest) = string(rest)?;
    let (flags, _) = rest.split_first_chunk::<4>()?;
    let (algorithm, bytes) = keys.iter().find(|key| key.public == public)?.sign(data, u32::from_be_bytes(*flags))?;
    let mut signature = Vec::new();
    put(&mut signature, algorithm.as_bytes());
    put(&mut signature, &bytes);
    Some(signature)
}

/// A string of the protocol, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn put(to: &mut Vec<u8>, string: &[u8]) {
    // None is longer than a file of keys or a message.
    to.extend(u32::try_from(string.len()).unwrap_or_default().to_be_bytes());
    to.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_the_users_agent_as_it_is_reaches_it() {
        let extension = |name: &[u8]| {
            let mut request = vec![EXTENSION];
            put(&mut request, name);
            request
        };
        assert!(is_allowed(&[REQUEST_IDENTITIES]) && is_allowed(&[SIGN_REQUEST, 0]) && is_allowed(&extension(SESSION_BIND)));
        assert!(!is_allowed(&extension(b"restrict-destination-v00@openssh.com")) && !is_allowed(&[EXTENSION, 0, 0]));
        // 17 and 25 add a key, 18 and 19 remove, 20, 21 and 26 are for smart cards, 22 and 23 lock.
        for number in (0..=u8::MAX).filter(|number| ![REQUEST_IDENTITIES, SIGN_REQUEST, EXTENSION].contains(number)) {
            assert!(!is_allowed(&[number]), "{number}");
            assert_eq!(own_answer(&[], &[number]), [FAILURE]);
        }
    }

    #[test]
    fn a_message_that_is_cut_off_or_too_long_is_refused() {
        assert_eq!(signature(&[], &[0, 0, 0, 9, 1]), None);
        assert_eq!(string(&[0xff, 0xff, 0xff, 0xff]), None);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (until, _held) = rustix::pipe::pipe().unwrap();
        (&ours).write_all(&(LONGEST + 1).to_be_bytes()).unwrap();
        assert_eq!(receive(&theirs, &until).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest::proptest! {
        #[test]
        fn no_request_makes_the_agent_panic(
            kind in proptest::sample::select(vec![REQUEST_IDENTITIES, SIGN_REQUEST, EXTENSION, 0]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
        ) {
            let request = [&[kind][..], &rest].concat();
            let _allowed: bool = is_allowed(&request);
            let answer = own_answer(&[], &request);
            proptest::prop_assert!(answer == [FAILURE] || answer == [IDENTITIES_ANSWER, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn a_conversation_ends_when_the_step_is_over() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let (until, held) = rustix::pipe::pipe().unwrap();
        let talk = std::thread::spawn(move || answer_all(&Source::Keys(Vec::new()), &theirs, &until));
        drop(held);
        assert_eq!(talk.join().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
