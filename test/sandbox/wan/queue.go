package wan

// parcel is a packet that waits for its release.
type parcel struct {
	due      int64 // nanoseconds on the hub's monotonic clock
	order    uint64
	slot     int32 // of the frame's buffer
	from, to int32 // positions of the nodes
	length   int32 // of the frame with its virtio header
	size     uint16
	received int64 // the kernel's receive stamp, Unix nanoseconds
	held     int64 // nanoseconds from received to due
	logged   bool
	identity identity
}

func (p *parcel) before(q *parcel) bool {
	return p.due < q.due || p.due == q.due && p.order < q.order
}

// queue is a binary heap of fixed capacity, the earliest due first and equal
// deadlines in order of arrival. Unlike container/heap it never allocates,
// which would sooner or later stop the thread that must not be late.
type queue struct {
	heap []parcel
	next uint64
}

func newQueue(capacity int) queue { return queue{heap: make([]parcel, 0, capacity)} }

// first is nil when the queue is empty.
func (q *queue) first() *parcel {
	if len(q.heap) == 0 {
		return nil
	}
	return &q.heap[0]
}

// push must not be called with the capacity used up; the buffers' slots see to that.
func (q *queue) push(p parcel) {
	p.order = q.next
	q.next++
	q.heap = append(q.heap, p)
	child := len(q.heap) - 1
	for child > 0 {
		parent := (child - 1) / 2
		if !q.heap[child].before(&q.heap[parent]) {
			return
		}
		q.heap[child], q.heap[parent] = q.heap[parent], q.heap[child]
		child = parent
	}
}

// pop takes the first parcel off; the queue must not be empty.
func (q *queue) pop() parcel {
	top := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap = q.heap[:last]
	for parent := 0; ; {
		child := 2*parent + 1
		if child >= last {
			return top
		}
		if child+1 < last && q.heap[child+1].before(&q.heap[child]) {
			child++
		}
		if !q.heap[child].before(&q.heap[parent]) {
			return top
		}
		q.heap[child], q.heap[parent] = q.heap[parent], q.heap[child]
		parent = child
	}
}
