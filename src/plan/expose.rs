//! The ports of EXPOSE: `[ip:][host:]port[-port][/protocol]` to `port/protocol`.
//!
//! Source: BuildKit `dockerfile2llb/convert_expose.go`.

use std::net::IpAddr;

/// The ports of one word, in order; `Err` says what is wrong with it.
pub(super) fn ports(word: &str) -> Result<Vec<String>, String> {
    let (rest, container) = word.rsplit_once(':').map_or((None, word), |(rest, container)| (Some(rest), container));
    let (ip, host) = match rest.map(|rest| rest.rsplit_once(':').ok_or(rest)) {
        None => (None, None),
        Some(Err(host)) => (None, Some(host)),
        Some(Ok((ip, host))) => (Some(ip), Some(host)),
    };
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        _ => return Err(format!("`{protocol}` is not a protocol: tcp, udp and sctp are")),
    };
    if let Some(ip) = ip.filter(|ip| !ip.is_empty()) {
        let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        bare.parse::<IpAddr>().map_err(|_unreadable| format!("`{ip}` is not an IP address"))?;
    }
    let (first, last) = port_range(range)?;
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let (host_first, host_last) = port_range(host)?;
        if first != last && last - first != host_last - host_first {
            return Err(format!("the ranges `{host}` and `{range}` are not of one length"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(format!("the range `{text}` ends before it begins")) } else { Ok((first, last)) }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(port),
        Err(_) if text.is_empty() => Err("there is no port".to_owned()),
        Err(_) => Err(format!("`{text}` is not a port, a number between 0 and 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_with_their_protocol() {
        assert_eq!(ports("80"), Ok(vec!["80/tcp".to_owned()]));
        assert_eq!(ports("53/UDP"), Ok(vec!["53/udp".to_owned()]));
        assert_eq!(ports("7000-7002/sctp").unwrap(), ["7000/sctp", "7001/sctp", "7002/sctp"]);
        assert_eq!(ports("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("[::1]:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("8080-8090:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("80/").unwrap(), ["80/tcp"]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for word in ["", "/tcp", "x", "65536", "-1", "9-8", "80/http", "1.2.3:1:80", "1-2:80-90", "80:"] {
            assert!(ports(word).is_err(), "{word}");
        }
    }
}
