package wg

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wireEndpoint is an endpoint as the kernel reads it.
type wireEndpoint struct {
	name    unix.RawSockaddrInet6 // or RawSockaddrInet4
	nameLen uint32
	info    [controlWords]uint64 // a control message with PKTINFO
	infoLen int                  // bytes; 0: none
}

func (w *wireEndpoint) init(key endpointKey) {
	addr := key.dst.Addr()
	if addr.Is4() {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.As4()}
		w.nameLen = unix.SizeofSockaddrInet4
	} else {
		w.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: addr.As16(), Scope_id: key.scope}
		w.nameLen = unix.SizeofSockaddrInet6
	}
	// Port is at the same place in both.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&w.name.Port))[:], key.dst.Port())

	if !key.src.IsValid() {
		return
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&w.info))
	data := unsafe.Add(unsafe.Pointer(&w.info), unix.CmsgLen(0))
	if addr.Is4() {
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Ifindex: int32(key.ifindex), Spec_dst: key.src.As4()}
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		w.infoLen = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	} else {
		*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Ifindex: key.ifindex, Addr: key.src.As16()}
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		w.infoLen = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
}
