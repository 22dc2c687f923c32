// The pods' network: a bridge, and for every pod a cable from it into a namespace.

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
)

const prefixLength = 16

// Network hands out addresses and connects pods.
type Network struct {
	bridge  netlink.Link
	cables  atomic.Uint32 // connected so far, for their names
	lock    sync.Mutex
	address netip.Addr // the one handed out last
}

func newNetwork(bridge, nodeAddress string) (*Network, error) {
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", bridge, err)
	}
	address, err := netip.ParseAddr(nodeAddress)
	return &Network{bridge: link, address: address}, err
}

// Allocate hands out an address, never one twice: a client that still knows a pod that is gone must not meet another.
func (network *Network) Allocate() string {
	network.lock.Lock()
	defer network.lock.Unlock()
	network.address = network.address.Next()
	return network.address.String()
}

// connect lays a cable from the bridge into the namespace of a process, as its eth0.
func (network *Network) connect(pid int, address string) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = fmt.Sprintf("pod%d", network.cables.Add(1))
	attributes.MasterIndex = network.bridge.Attrs().Index
	cable := &netlink.Veth{
		LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid),
		PeerHardwareAddr: hardwareAddress(address),
	}
	if err := netlink.LinkAdd(cable); err != nil {
		return nil, fmt.Errorf("connect %s: %w", address, err)
	}
	return cable, netlink.LinkSetUp(cable)
}

// hardwareAddress is made of the IP address, so that neighbours of a pod that restarts need not learn a new one.
func hardwareAddress(address string) net.HardwareAddr {
	four := net.ParseIP(address).To4()
	return net.HardwareAddr{0x02, 0x00, four[0], four[1], four[2], four[3]}
}

// configureInside runs inside a pod's namespace.
func configureInside(address string, gateway net.IP) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	cable, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	network := &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(prefixLength, 32)}
	if err := netlink.AddrAdd(cable, &netlink.Addr{IPNet: network}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: cable.Attrs().Index, Gw: gateway})
}

// listens says whether anything in the process's network namespace waits for connections or datagrams. It makes
// readiness independent of what the pod declares: the suite's pods declare neither probes nor ports.
func listens(pid int) bool {
	const tcpListen, udpUnconnected = "0A", "07"
	return hasSocket(pid, "tcp", tcpListen) || hasSocket(pid, "tcp6", tcpListen) ||
		hasSocket(pid, "udp", udpUnconnected) || hasSocket(pid, "udp6", udpUnconnected)
}

func hasSocket(pid int, protocol, state string) bool {
	table, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, protocol))
	if err != nil {
		return false
	}
	defer table.Close()
	// sl  local_address  rem_address  st  …
	for lines := bufio.NewScanner(table); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && fields[3] == state {
			return true
		}
	}
	return false
}
