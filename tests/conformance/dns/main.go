// The program coredns stands in for CoreDNS in the suite's base manifests: it answers every query as CoreDNS's plugin
// `whoami` does, with the client's own address. No other machine is asked, so none is needed.
package main

import (
	"log"
	"net"

	"github.com/miekg/dns"
)

func main() {
	server := &dns.Server{Addr: ":53", Net: "udp", Handler: dns.HandlerFunc(answer)}
	log.Fatal(server.ListenAndServe())
}

func answer(response dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative = true
	if client, ok := response.RemoteAddr().(*net.UDPAddr); ok && len(query.Question) == 1 {
		header := dns.RR_Header{Name: query.Question[0].Name, Class: dns.ClassINET, Rrtype: dns.TypeA}
		reply.Extra = append(reply.Extra, &dns.A{Hdr: header, A: client.IP})
	}
	if err := response.WriteMsg(reply); err != nil {
		log.Print(err)
	}
}
