package wan

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestQueueGivesParcelsBackByDeadlineAndThenByArrival(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	q := newQueue(300)
	type arrival struct {
		due   int64
		order int32
	}
	var waiting []arrival
	order := int32(0)
	for range 20_000 {
		if source.IntN(2) == 0 && len(waiting) < 300 {
			a := arrival{due: source.Int64N(50), order: order} // few deadlines: many are equal
			order++
			q.push(parcel{due: a.due, slot: a.order})
			at, _ := slices.BinarySearchFunc(waiting, a, func(x, y arrival) int {
				if x.due != y.due {
					return int(x.due - y.due)
				}
				return int(x.order - y.order)
			})
			waiting = slices.Insert(waiting, at, a)
		} else if len(waiting) > 0 {
			first, want := *q.first(), waiting[0]
			got := q.pop()
			if got != first || got.due != want.due || got.slot != want.order {
				t.Fatalf("popped parcel %d due %d, want %d due %d", got.slot, got.due, want.order, want.due)
			}
			waiting = waiting[1:]
		}
		if (q.first() == nil) != (len(waiting) == 0) {
			t.Fatalf("first is %v with %d parcels", q.first(), len(waiting))
		}
	}
}

func TestQueueDoesNotAllocate(t *testing.T) {
	q := newQueue(64)
	allocations := testing.AllocsPerRun(100, func() {
		for i := range 64 {
			q.push(parcel{due: int64(i * 37 % 64)})
		}
		for range 64 {
			q.pop()
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
