//! The network block device protocol, as much of it as QEMU needs to reach the drive of
//! [`super::disk`] over a Unix socket: the fixed newstyle handshake, reads, writes and flushes.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::disk::{Disk, Power};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const MAGIC_REQUEST: u32 = 0x2560_9513;
const MAGIC_REPLY: u32 = 0x6744_6698;

/// Handshake: fixed newstyle, and no run of zeroes after the old way to name an export.
const HANDSHAKE_FLAGS: u16 = 1 | 2;

/// Transmission: flags are there, and flushes are taken. No FUA: the other side flushes instead.
const DISK_FLAGS: u16 = 1 | 4;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;

const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// What QEMU asks for at once, at most; more ends the connection.
const REQUEST_BYTES_MAX: u32 = 64 << 20;
const OPTION_BYTES_MAX: u32 = 4096;

/// A drive that QEMU can reach.
#[derive(Debug, Clone)]
pub(super) struct Server(Arc<Mutex<Disk>>);

impl Server {
    /// Listens on `path` until the process ends.
    pub(super) fn start(disk: Disk, path: &Path) -> io::Result<Self> {
        let server = Self(Arc::new(Mutex::new(disk)));
        let listener = UnixListener::bind(path)?;
        let shared = server.clone();
        thread::Builder::new().name("nbd".to_owned()).spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // What a killed QEMU leaves is no failure of ours.
                let _ = shared.serve(&stream);
            }
        })?;
        Ok(server)
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no thread panics while it holds the drive")
    }

    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let mut input = BufReader::new(stream);
        let bytes = self.disk().bytes();
        if handshake(&mut input, stream, bytes)? {
            while self.request(&mut input, stream)? {}
        }
        Ok(())
    }

    /// One request; false when it was the last. A drive without power answers nothing.
    fn request(&self, input: &mut impl Read, mut output: impl Write) -> io::Result<bool> {
        if take_u32(input)? != MAGIC_REQUEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let _flags = take_u16(input)?;
        let verb = take_u16(input)?;
        let (cookie, offset, len) = (take_u64(input)?, take_u64(input)?, take_u32(input)?);
        if len > REQUEST_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; if matches!(verb, READ | WRITE) { len as usize } else { 0 }];
        if verb == WRITE {
            input.read_exact(&mut data)?;
        }
        let mut disk = self.disk();
        if disk.power == Power::Off || verb == DISCONNECT {
            return Ok(verb != DISCONNECT);
        }
        let held = disk.holds(offset, data.len());
        let done = match verb {
            READ if held => disk.read(offset, &mut data),
            WRITE if held => disk.write(offset, std::mem::take(&mut data)),
            FLUSH => disk.flush(),
            _ => Err(ErrorKind::InvalidInput.into()),
        };
        if disk.power == Power::Off {
            return Ok(true);
        }
        drop(disk);
        let status = match &done {
            Ok(()) => 0,
            Err(error) if error.kind() == ErrorKind::InvalidInput => EINVAL,
            Err(_) => EIO,
        };
        let mut reply = Vec::with_capacity(16 + data.len());
        reply.extend(MAGIC_REPLY.to_be_bytes());
        reply.extend(status.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        if verb == READ && done.is_ok() {
            reply.append(&mut data);
        }
        output.write_all(&reply)?;
        Ok(true)
    }
}

/// Agrees on the export; false when the other side only wanted to look.
fn handshake(input: &mut impl Read, mut output: impl Write, bytes: u64) -> io::Result<bool> {
    let mut hello = Vec::new();
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(MAGIC_OPTION.to_be_bytes());
    hello.extend(HANDSHAKE_FLAGS.to_be_bytes());
    output.write_all(&hello)?;
    let _client_flags = take_u32(input)?;
    let mut export = bytes.to_be_bytes().to_vec();
    export.extend(DISK_FLAGS.to_be_bytes());
    loop {
        if take_u64(input)? != MAGIC_OPTION {
            return Err(ErrorKind::InvalidData.into());
        }
        let (option, len) = (take_u32(input)?, take_u32(input)?);
        if len > OPTION_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        input.read_exact(&mut vec![0; len as usize])?;
        match option {
            OPTION_EXPORT_NAME => {
                output.write_all(&export)?;
                return Ok(true);
            }
            OPTION_GO | OPTION_INFO => {
                // The kind of information, 0, before what it is.
                let info = [&[0, 0], &export[..]].concat();
                output.write_all(&option_reply(option, REPLY_INFO, &info))?;
                output.write_all(&option_reply(option, REPLY_ACK, &[]))?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_ABORT => {
                output.write_all(&option_reply(option, REPLY_ACK, &[]))?;
                return Ok(false);
            }
            _ => output.write_all(&option_reply(option, REPLY_UNSUPPORTED, &[]))?,
        }
    }
}

fn option_reply(option: u32, reply: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC_OPTION_REPLY.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(reply.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).expect("a few bytes").to_be_bytes());
    bytes.extend(data);
    bytes
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_u16(input: &mut impl Read) -> io::Result<u16> {
    take(input).map(u16::from_be_bytes)
}

fn take_u32(input: &mut impl Read) -> io::Result<u32> {
    take(input).map(u32::from_be_bytes)
}

fn take_u64(input: &mut impl Read) -> io::Result<u64> {
    take(input).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::disk::Cut;
    use super::*;

    struct Client(UnixStream);

    impl Client {
        fn connect(path: &Path) -> Self {
            let mut stream = UnixStream::connect(path).unwrap();
            assert_eq!(take_u64(&mut stream).unwrap(), MAGIC);
            assert_eq!(take_u64(&mut stream).unwrap(), MAGIC_OPTION);
            assert_eq!(take_u16(&mut stream).unwrap(), HANDSHAKE_FLAGS);
            let mut client = Self(stream);
            client.send(&[&3u32.to_be_bytes()]);
            client
        }

        fn send(&mut self, parts: &[&[u8]]) {
            self.0.write_all(&parts.concat()).unwrap();
        }

        fn option(&mut self, option: u32) -> (u32, Vec<u8>) {
            let magic = MAGIC_OPTION.to_be_bytes();
            self.send(&[&magic, &option.to_be_bytes(), &0u32.to_be_bytes()]);
            self.reply()
        }

        fn reply(&mut self) -> (u32, Vec<u8>) {
            assert_eq!(take_u64(&mut self.0).unwrap(), MAGIC_OPTION_REPLY);
            take_u32(&mut self.0).unwrap();
            let reply = take_u32(&mut self.0).unwrap();
            let mut data = vec![0; take_u32(&mut self.0).unwrap() as usize];
            self.0.read_exact(&mut data).unwrap();
            (reply, data)
        }

        fn request(&mut self, verb: u16, offset: u64, len: u32, data: &[u8]) {
            let head = [MAGIC_REQUEST.to_be_bytes(), u32::from(verb).to_be_bytes()].concat();
            let place = [9u64.to_be_bytes(), offset.to_be_bytes()].concat();
            self.send(&[&head, &place, &len.to_be_bytes(), data]);
        }

        fn status(&mut self) -> u32 {
            assert_eq!(take_u32(&mut self.0).unwrap(), MAGIC_REPLY);
            let status = take_u32(&mut self.0).unwrap();
            assert_eq!(take_u64(&mut self.0).unwrap(), 9);
            status
        }
    }

    #[test]
    fn dialogue_reads_what_it_wrote_until_the_power_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let path = directory.path().join("nbd");
        let server = Server::start(Disk::new(file, 8192, 1), &path).unwrap();
        let mut client = Client::connect(&path);
        assert_eq!(client.option(8).0, REPLY_UNSUPPORTED);
        let (reply, info) = client.option(OPTION_GO);
        assert_eq!((reply, &info[2..10]), (REPLY_INFO, &8192u64.to_be_bytes()[..]));
        assert_eq!(client.reply(), (REPLY_ACK, Vec::new()));

        client.request(WRITE, 4096, 512, &[5; 512]);
        assert_eq!(client.status(), 0);
        client.request(READ, 4096, 512, &[]);
        assert_eq!(client.status(), 0);
        assert_eq!(take::<512>(&mut client.0).unwrap(), [5; 512]);
        client.request(READ, 8192, 512, &[]);
        assert_eq!(client.status(), EINVAL);
        client.request(FLUSH, 0, 0, &[]);
        assert_eq!(client.status(), 0);
        let flushes = server.disk().flushes;
        assert_eq!((server.disk().writes, flushes), (1, 1));

        server.disk().power = Power::Short(Cut { writes: 1, held: 1, at_flush: false });
        client.request(WRITE, 0, 512, &[6; 512]);
        client.request(DISCONNECT, 0, 0, &[]);
        assert_eq!(client.0.read(&mut [0; 1]).unwrap(), 0, "no answer");
        assert_eq!(server.disk().power, Power::Off);
    }
}
