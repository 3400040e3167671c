//! A network card whose other end is this process (<https://docs.kernel.org/networking/tuntap.html>).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

/// A card: what is sent through it is read here, one IP packet at a time.
pub(super) struct Tun(File);

impl Tun {
    /// Makes the card `name`.
    #[allow(unsafe_code)]
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all bytes zero are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long"));
        }
        request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte as libc::c_char);
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and the request is what this call reads and writes.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
            0.. => Ok(Self(file)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next packet; an error once the card is gone.
    pub(super) fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(packet)
    }

    /// Delivers a packet. What can't be delivered is lost, as packets are.
    pub(super) fn write(&self, packet: &[u8]) {
        let _ = (&self.0).write(packet);
    }
}
