package probe

// Method is a way to measure a round trip. It is fit to be the value of a
// metric label and of latency.Distribution.Method.
type Method string

const (
	// MethodUDP is the two-way UDP exchange with a peer's Reflector.
	MethodUDP Method = "udp"
	// MethodICMP is the echo of the peer's kernel.
	MethodICMP Method = "icmp"
	// MethodTCP is the handshake of a TCP connection with any listener of the
	// peer, as the kernel measured it.
	MethodTCP Method = "tcp"
	// MethodPortable is an ICMP echo that is timed by the process, for systems
	// whose kernel does not stamp packets.
	MethodPortable Method = "portable"
)
