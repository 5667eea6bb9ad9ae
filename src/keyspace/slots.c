#include "keyspace/slots.h"

struct listing {
    struct slot_order *order;
    uint32_t next;
};

/* The set holds the numbers themselves where other tables have pointers. */
static int list_imported(struct walk *walk, const struct frozen_entry *entries,
                         size_t count, void *context)
{
    struct listing *listing = context;
    struct slot_order *order = listing->order;
    (void)walk;
    for (size_t i = 0; i < count; i++) {
        uint64_t slot = entries[i].key;
        if (slot >= order->count || order->imported[slot])
            return -EBADMSG;
        order->imported[slot] = true;
        order->slots[listing->next++] = (uint16_t)slot;
    }
    return 0;
}

static int read_imported(struct walk *walk, const struct frozen_store *store,
                         struct slot_order *order)
{
    struct frozen_table set;
    struct listing listing = {.order = order};
    int error = table_read(walk, store->importing, &set);
    if (error)
        return error;
    if (table_size(&set) > order->count)
        return -EBADMSG;
    listing.next = order->count - (uint32_t)table_size(&set);
    return table_walk(walk, &set, list_imported, &listing);
}

int slot_order_read(struct walk *walk, const struct frozen_store *store,
                    struct slot_order *order)
{
    uint32_t next = 0;
    memset(order, 0, sizeof(*order));
    order->count = (uint32_t)store->count;
    int error = read_imported(walk, store, order);
    for (uint32_t slot = 0; slot < order->count && !error; slot++)
        if (!order->imported[slot])
            order->slots[next++] = (uint16_t)slot;
    return error;
}
