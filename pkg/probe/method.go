package probe

// Method is how a round trip is measured. It is fit to be the value of a
// metric label, and of latency.Distribution.Method.
type Method string

const (
	// MethodUDP is the two-way method of STAMP, between two agents: see UDP.
	// Neither agent's process nor host is in its round trips.
	MethodUDP Method = "udp"
	// MethodICMP is an echo that the peer's kernel answers. It needs no agent
	// there, only a network that lets echoes through.
	MethodICMP Method = "icmp"
	// MethodTCP is the handshake of a connection to a port of the peer, which
	// its kernel answers: see TCP. It needs no agent there and goes where only
	// the application's port is open.
	MethodTCP Method = "tcp"
	// MethodPortable is an echo whose times the process reads itself, for
	// systems whose kernel takes none: see Portable. What the host does to
	// the process is in its round trips.
	MethodPortable Method = "portable"
)
