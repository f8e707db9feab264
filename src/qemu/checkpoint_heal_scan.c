/*
 * checkpoint_heal_scan.c: in which blocks do two disks differ?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: whatever format, encryption or protocol an image has, a storage daemon makes
 * plain bytes of it; two of them serve one side each, so that reading takes two
 * processors and comparing what is left.  The disk is cut into regions, which threads
 * take one after the other.  In a region both sides are asked where they are zero; what
 * one of them has data in is read in small pieces, a few at a time: small enough that
 * both fit into the cache between the socket and the comparison (256 KiB measured
 * best), enough of them that neither server waits for us.
 *
 * One side zero: only the other is read, and compared with zeroes.
 */

#include "config.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_heal_scan.h"

#define REGION_BYTES (64ULL * 1024 * 1024)
/** The most that is mapped at a time: qemu-img's answer has to fit into memory. */
#define MAPPED_REGION_BYTES (4096ULL * 1024 * 1024)
#define PIECE_BYTES (256U * 1024)
#define IN_FLIGHT 6
#define THREADS 2
/** Zeroes written at a time by virCheckpointScanMark(). */
#define MARK_IN_FLIGHT 64
#define MARK_BYTES (1024ULL * 1024 * 1024)

typedef struct nbd_handle virCheckpointNbd;

static void
virCheckpointNbdClose(virCheckpointNbd *nbd)
{
    if (nbd)
        nbd_close(nbd);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointNbd, virCheckpointNbdClose)

static gboolean
virCheckpointNbdFail(GError **error)
{
    const gchar *reason = nbd_get_error();

    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "reading the images: %s", reason ? reason : "unknown error");
    return FALSE;
}

static virCheckpointNbd *
virCheckpointNbdOpen(const gchar *socket, const gchar *export, GError **error)
{
    g_autoptr(virCheckpointNbd) nbd = nbd_create();

    if (!nbd || nbd_set_export_name(nbd, export) < 0 ||
        nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_connect_unix(nbd, socket) < 0) {
        virCheckpointNbdFail(error);
        return NULL;
    }
    return g_steal_pointer(&nbd);
}

/* Where to read: a piece with data on at least one side. */
typedef struct virCheckpointPiece {
    guint64 offset;
    guint length;
    gboolean data[2];
} virCheckpointPiece;

/* A piece that is under way. */
typedef struct virCheckpointSlot {
    virCheckpointPiece piece;
    guint waiting; /* answers that are not there; 0 and !busy: free */
    gboolean busy;
    gint failed; /* errno */
    guint8 *buffers[2];
} virCheckpointSlot;

/* What one thread works with. */
typedef struct virCheckpointScanner {
    virCheckpointScan *scan;
    virCheckpointNbd *nbd[2];
    virCheckpointSlot slots[IN_FLIGHT];
    guint8 *zeroes;
    GArray *found; /* virCheckpointRange */
} virCheckpointScanner;

struct virCheckpointScan {
    guint64 sizeBytes;
    guint64 granule;
    guint64 regionBytes;
    virCheckpointMap *maps[2]; /* borrowed; both or none */
    virCheckpointScanner scanners[THREADS];
    virCheckpointNbd *marks;

    /* of a run */
    gint *cancelled;
    gint *doneMib;
    GMutex lock;   /* guards what follows */
    guint64 next;  /* region that nobody has taken */
    GError *error; /* the first one */
};

typedef struct virCheckpointExtents {
    GArray *zero; /* virCheckpointRange */
    guint64 offset;
    guint64 end;
} virCheckpointExtents;

static int
virCheckpointScanExtent(void *data,
                        const char *context,
                        uint64_t offset,
                        uint32_t *entries,
                        size_t count,
                        int *error)
{
    virCheckpointExtents *extents = data;
    size_t i;

    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    for (i = 0; i + 1 < count && extents->offset < extents->end; i += 2) {
        virCheckpointRange range = {extents->offset,
                                    MIN(entries[i], extents->end - extents->offset)};

        if (entries[i + 1] & LIBNBD_STATE_ZERO)
            g_array_append_val(extents->zero, range);
        extents->offset += range.length;
    }
    return 0;
}

/* The zero ranges of one side of a region.  A server may answer for less. */
static GArray *
virCheckpointScanZeroes(virCheckpointNbd *nbd,
                        guint64 offset,
                        guint64 length,
                        GError **error)
{
    virCheckpointExtents extents = {
        .zero = g_array_new(FALSE, FALSE, sizeof(virCheckpointRange)),
        .offset = offset,
        .end = offset + length,
    };

    while (extents.offset < extents.end) {
        guint64 before = extents.offset;

        if (nbd_block_status(nbd, extents.end - extents.offset, extents.offset,
                             (nbd_extent_callback){.callback = virCheckpointScanExtent,
                                                   .user_data = &extents},
                             0) < 0 ||
            extents.offset == before) {
            g_array_unref(extents.zero);
            virCheckpointNbdFail(error);
            return NULL;
        }
    }
    return extents.zero;
}

/* TRUE if [@offset, @end) lies in one zero range; @at moves along. */
static gboolean
virCheckpointScanIsZero(GArray *zero, guint *at, guint64 offset, guint64 end)
{
    while (*at < zero->len) {
        const virCheckpointRange *range = &g_array_index(zero, virCheckpointRange, *at);

        if (range->offset + range->length > offset)
            return range->offset <= offset && end <= range->offset + range->length;
        (*at)++;
    }
    return FALSE;
}

/* Neighbouring ranges of zeroes may come in several answers. */
static void
virCheckpointScanJoin(GArray *ranges)
{
    guint to = 0;
    guint i;

    for (i = 1; i < ranges->len; i++) {
        virCheckpointRange *last = &g_array_index(ranges, virCheckpointRange, to);
        const virCheckpointRange *one = &g_array_index(ranges, virCheckpointRange, i);

        if (last->offset + last->length == one->offset)
            last->length += one->length;
        else
            g_array_index(ranges, virCheckpointRange, ++to) = *one;
    }
    if (ranges->len > 0)
        g_array_set_size(ranges, to + 1);
}

/* The pieces of a region that must be read. */
static GArray *
virCheckpointScanPieces(virCheckpointScanner *scanner,
                        guint64 offset,
                        guint64 length,
                        GError **error)
{
    g_autoptr(GArray) left =
        virCheckpointScanZeroes(scanner->nbd[0], offset, length, error);
    g_autoptr(GArray) right =
        left ? virCheckpointScanZeroes(scanner->nbd[1], offset, length, error) : NULL;
    GArray *pieces;
    guint64 end = offset + length;
    guint at[2] = {0, 0};

    if (!right)
        return NULL;
    virCheckpointScanJoin(left);
    virCheckpointScanJoin(right);
    pieces = g_array_new(FALSE, FALSE, sizeof(virCheckpointPiece));
    for (; offset < end; offset += PIECE_BYTES) {
        virCheckpointPiece piece = {
            .offset = offset,
            .length = (guint)MIN(PIECE_BYTES, end - offset),
        };

        piece.data[0] =
            !virCheckpointScanIsZero(left, &at[0], offset, offset + piece.length);
        piece.data[1] =
            !virCheckpointScanIsZero(right, &at[1], offset, offset + piece.length);
        if (piece.data[0] || piece.data[1])
            g_array_append_val(pieces, piece);
    }
    return pieces;
}

static int
virCheckpointScanArrived(void *data, int *error)
{
    virCheckpointSlot *slot = data;

    if (*error)
        slot->failed = *error;
    slot->waiting--;
    return 1; /* retired */
}

static gboolean
virCheckpointScanIssue(virCheckpointScanner *scanner,
                       virCheckpointSlot *slot,
                       const virCheckpointPiece *piece,
                       GError **error)
{
    guint side;

    slot->piece = *piece;
    slot->busy = TRUE;
    for (side = 0; side < 2; side++) {
        nbd_completion_callback done = {.callback = virCheckpointScanArrived,
                                        .user_data = slot};

        if (!piece->data[side])
            continue;
        slot->waiting++;
        if (nbd_aio_pread(scanner->nbd[side], slot->buffers[side], piece->length,
                          piece->offset, done, 0) < 0) {
            slot->waiting--;
            return virCheckpointNbdFail(error);
        }
    }
    return TRUE;
}

/* Both sides of a piece are there. */
static void
virCheckpointScanCompare(virCheckpointScanner *scanner,
                         guint64 offset,
                         guint pieceBytes,
                         const guint8 *left,
                         const guint8 *right)
{
    guint step = (guint)MIN(scanner->scan->granule, PIECE_BYTES);
    guint at;

    if (memcmp(left, right, pieceBytes) == 0)
        return;
    for (at = 0; at < pieceBytes; at += step) {
        guint length = MIN(step, pieceBytes - at);
        virCheckpointRange range = {offset + at, length};

        if (memcmp(left + at, right + at, length) != 0)
            g_array_append_val(scanner->found, range);
    }
}

/* A piece has come over the connections. */
static gboolean
virCheckpointScanTakeSlot(virCheckpointScanner *scanner,
                          virCheckpointSlot *slot,
                          GError **error)
{
    const virCheckpointPiece *piece = &slot->piece;

    slot->busy = FALSE;
    if (slot->failed) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "reading the images at %" G_GUINT64_FORMAT ": %s", piece->offset,
                    g_strerror(slot->failed));
        return FALSE;
    }
    virCheckpointScanCompare(scanner, piece->offset, piece->length,
                             piece->data[0] ? slot->buffers[0] : scanner->zeroes,
                             piece->data[1] ? slot->buffers[1] : scanner->zeroes);
    return TRUE;
}

/* Waits until one of the two connections has something to do, and does it. */
static gboolean
virCheckpointScanPoll(virCheckpointScanner *scanner, GError **error)
{
    struct pollfd fds[2];
    guint side;

    for (side = 0; side < 2; side++) {
        guint direction = nbd_aio_get_direction(scanner->nbd[side]);

        fds[side].fd = nbd_aio_get_fd(scanner->nbd[side]);
        fds[side].events =
            (gshort)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                     (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        fds[side].revents = 0;
    }
    if (poll(fds, 2, 1000) < 0 && errno != EINTR) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR, "poll: %s",
                    g_strerror(errno));
        return FALSE;
    }
    for (side = 0; side < 2; side++) {
        virCheckpointNbd *nbd = scanner->nbd[side];
        guint direction = nbd_aio_get_direction(nbd);
        int done = 0;

        if ((direction & LIBNBD_AIO_DIRECTION_READ) &&
            (fds[side].revents & (POLLIN | POLLHUP | POLLERR)))
            done = nbd_aio_notify_read(nbd);
        else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) &&
                 (fds[side].revents & (POLLOUT | POLLHUP | POLLERR)))
            done = nbd_aio_notify_write(nbd);
        if (done < 0 || nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd))
            return virCheckpointNbdFail(error);
    }
    return TRUE;
}

/* Keeps all slots busy until @pieces are through. */
static gboolean
virCheckpointScanRegion(virCheckpointScanner *scanner, GArray *pieces, GError **error)
{
    guint busy = 0;
    guint next = 0;
    guint i;

    while (next < pieces->len || busy > 0) {
        if (g_atomic_int_get(scanner->scan->cancelled)) {
            g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_ABORTED,
                                "it was cancelled");
            return FALSE;
        }
        for (i = 0; i < IN_FLIGHT; i++) {
            virCheckpointSlot *slot = &scanner->slots[i];

            if (slot->busy && slot->waiting == 0) {
                busy--;
                if (!virCheckpointScanTakeSlot(scanner, slot, error))
                    return FALSE;
            }
            if (slot->busy || next == pieces->len)
                continue;
            busy++;
            if (!virCheckpointScanIssue(
                    scanner, slot, &g_array_index(pieces, virCheckpointPiece, next++),
                    error))
                return FALSE;
        }
        if (busy > 0 && !virCheckpointScanPoll(scanner, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointScannerOpen(virCheckpointScanner *scanner,
                         const virCheckpointScanExport disks[2],
                         GError **error)
{
    guint side;
    guint i;

    scanner->zeroes = g_malloc0(PIECE_BYTES);
    scanner->found = g_array_new(FALSE, FALSE, sizeof(virCheckpointRange));
    for (i = 0; i < IN_FLIGHT; i++) {
        for (side = 0; side < 2; side++)
            scanner->slots[i].buffers[side] = g_malloc(PIECE_BYTES);
    }
    for (side = 0; side < 2; side++) {
        if (!(scanner->nbd[side] =
                  virCheckpointNbdOpen(disks[side].socket, disks[side].name, error)))
            return FALSE;
    }
    return TRUE;
}

static void
virCheckpointScannerClose(virCheckpointScanner *scanner)
{
    guint side;
    guint i;

    /* Connections first: they write into the buffers. */
    for (side = 0; side < 2; side++)
        virCheckpointNbdClose(scanner->nbd[side]);
    for (i = 0; i < IN_FLIGHT; i++) {
        for (side = 0; side < 2; side++)
            g_free(scanner->slots[i].buffers[side]);
    }
    g_free(scanner->zeroes);
    g_clear_pointer(&scanner->found, g_array_unref);
}

virCheckpointScan *
virCheckpointScanOpen(const virCheckpointScanExport disks[2],
                      const virCheckpointScanExport *marks,
                      virCheckpointMap *const maps[2],
                      guint64 sizeBytes,
                      guint64 granule,
                      GError **error)
{
    g_autoptr(virCheckpointScan) scan = g_new0(virCheckpointScan, 1);
    guint i;

    g_mutex_init(&scan->lock);
    scan->sizeBytes = sizeBytes;
    scan->granule = granule;
    scan->regionBytes = REGION_BYTES;
    if (maps[0] && maps[1]) {
        scan->maps[0] = maps[0];
        scan->maps[1] = maps[1];
        /* One each for a small disk: each map costs a process. */
        scan->regionBytes =
            CLAMP(sizeBytes / THREADS / REGION_BYTES * REGION_BYTES + REGION_BYTES,
                  REGION_BYTES, MAPPED_REGION_BYTES);
    }
    for (i = 0; i < THREADS; i++) {
        scan->scanners[i].scan = scan;
        if (!virCheckpointScannerOpen(&scan->scanners[i], disks, error))
            return NULL;
    }
    if (!(scan->marks = virCheckpointNbdOpen(marks->socket, marks->name, error)))
        return NULL;
    return g_steal_pointer(&scan);
}

void
virCheckpointScanFree(virCheckpointScan *scan)
{
    guint i;

    if (!scan)
        return;
    for (i = 0; i < THREADS; i++)
        virCheckpointScannerClose(&scan->scanners[i]);
    virCheckpointNbdClose(scan->marks);
    g_clear_error(&scan->error);
    g_mutex_clear(&scan->lock);
    g_free(scan);
}

/* The next region; FALSE when there is none, or another thread failed. */
static gboolean
virCheckpointScanTake(virCheckpointScan *scan, guint64 *offset, guint64 *length)
{
    gboolean any;

    g_mutex_lock(&scan->lock);
    *offset = scan->next;
    *length = MIN(scan->regionBytes, scan->sizeBytes - scan->next);
    scan->next += *length;
    any = *length > 0 && !scan->error;
    g_mutex_unlock(&scan->lock);
    return any;
}

/* Bytes of a plain file; what lies behind its end is zero. */
static gboolean
virCheckpointScanRead(int fd, guint8 *buffer, guint length, guint64 at, GError **error)
{
    guint done = 0;

    while (done < length) {
        gssize got = pread(fd, buffer + done, length - done, (goffset)(at + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                        "reading the images: %s", g_strerror(errno));
            return FALSE;
        }
        if (got == 0)
            break;
        done += (guint)got;
    }
    memset(buffer + done, 0, length - done);
    return TRUE;
}

/* A piece of which both sides are zero or in plain files. */
static gboolean
virCheckpointScanPlain(virCheckpointScanner *scanner,
                       const virCheckpointExtent *const sides[2],
                       guint64 offset,
                       guint length,
                       GError **error)
{
    const guint8 *data[2];
    guint side;

    for (side = 0; side < 2; side++) {
        const virCheckpointExtent *extent = sides[side];
        guint8 *buffer = scanner->slots[0].buffers[side];

        data[side] = scanner->zeroes;
        if (extent->kind == VIR_CHECKPOINT_EXTENT_ZERO)
            continue;
        data[side] = buffer;
        if (!virCheckpointScanRead(extent->fd, buffer, length,
                                   extent->at + (offset - extent->offset), error))
            return FALSE;
    }
    virCheckpointScanCompare(scanner, offset, length, data[0], data[1]);
    return TRUE;
}

/* Walks two maps of the same region.  What is not plain goes into @others. */
static gboolean
virCheckpointScanWalk(virCheckpointScanner *scanner,
                      GArray *const maps[2],
                      guint64 offset,
                      guint64 end,
                      GArray *others,
                      GError **error)
{
    guint at[2] = {0, 0};

    while (offset < end) {
        const virCheckpointExtent *sides[2];
        virCheckpointPiece piece = {.offset = offset, .data = {TRUE, TRUE}};
        guint64 stop = end;
        guint side;

        for (side = 0; side < 2; side++) {
            sides[side] = &g_array_index(maps[side], virCheckpointExtent, at[side]);
            stop = MIN(stop, sides[side]->offset + sides[side]->length);
        }
        if (g_atomic_int_get(scanner->scan->cancelled)) {
            g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_ABORTED,
                                "it was cancelled");
            return FALSE;
        }
        if (sides[0]->kind != VIR_CHECKPOINT_EXTENT_ZERO ||
            sides[1]->kind != VIR_CHECKPOINT_EXTENT_ZERO) {
            stop = MIN(stop, offset - offset % PIECE_BYTES + PIECE_BYTES);
            piece.length = (guint)(stop - offset);
            if (sides[0]->kind == VIR_CHECKPOINT_EXTENT_OTHER ||
                sides[1]->kind == VIR_CHECKPOINT_EXTENT_OTHER)
                g_array_append_val(others, piece);
            else if (!virCheckpointScanPlain(scanner, sides, offset, piece.length,
                                             error))
                return FALSE;
        }
        g_atomic_int_add(scanner->scan->doneMib, (gint)((stop >> 20) - (offset >> 20)));
        offset = stop;
        for (side = 0; side < 2; side++) {
            if (sides[side]->offset + sides[side]->length == stop)
                at[side]++;
        }
    }
    return TRUE;
}

static gboolean
virCheckpointScanMapped(virCheckpointScanner *scanner,
                        guint64 offset,
                        guint64 length,
                        GError **error)
{
    g_autoptr(GArray) left =
        virCheckpointMapLook(scanner->scan->maps[0], offset, length, error);
    g_autoptr(GArray) right =
        left ? virCheckpointMapLook(scanner->scan->maps[1], offset, length, error)
             : NULL;
    g_autoptr(GArray) others = g_array_new(FALSE, FALSE, sizeof(virCheckpointPiece));
    GArray *const maps[2] = {left, right};

    return right &&
           virCheckpointScanWalk(scanner, maps, offset, offset + length, others,
                                 error) &&
           virCheckpointScanRegion(scanner, others, error);
}

static gboolean
virCheckpointScanServed(virCheckpointScanner *scanner,
                        guint64 offset,
                        guint64 length,
                        GError **error)
{
    g_autoptr(GArray) pieces = virCheckpointScanPieces(scanner, offset, length, error);

    if (!pieces || !virCheckpointScanRegion(scanner, pieces, error))
        return FALSE;
    g_atomic_int_add(scanner->scan->doneMib, (gint)(length >> 20));
    return TRUE;
}

static gboolean
virCheckpointScanWork(virCheckpointScanner *scanner, GError **error)
{
    guint64 offset;
    guint64 length;

    while (virCheckpointScanTake(scanner->scan, &offset, &length)) {
        if (scanner->scan->maps[0]
                ? !virCheckpointScanMapped(scanner, offset, length, error)
                : !virCheckpointScanServed(scanner, offset, length, error))
            return FALSE;
    }
    return TRUE;
}

static gpointer
virCheckpointScanThread(gpointer data)
{
    virCheckpointScanner *scanner = data;
    GError *error = NULL;

    if (virCheckpointScanWork(scanner, &error))
        return NULL;
    g_mutex_lock(&scanner->scan->lock);
    if (!scanner->scan->error)
        scanner->scan->error = g_steal_pointer(&error);
    g_mutex_unlock(&scanner->scan->lock);
    g_clear_error(&error);
    return NULL;
}

static gint
virCheckpointScanSort(gconstpointer a, gconstpointer b)
{
    const virCheckpointRange *left = a;
    const virCheckpointRange *right = b;

    return left->offset < right->offset ? -1 : left->offset > right->offset;
}

GArray *
virCheckpointScanRun(virCheckpointScan *scan,
                     gint *cancelled,
                     gint *doneMib,
                     GError **error)
{
    g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(virCheckpointRange));
    GThread *threads[THREADS];
    guint i;

    scan->cancelled = cancelled;
    scan->doneMib = doneMib;
    for (i = 0; i < THREADS; i++)
        threads[i] = g_thread_new("heal", virCheckpointScanThread, &scan->scanners[i]);
    for (i = 0; i < THREADS; i++)
        g_thread_join(threads[i]);
    if (scan->error) {
        g_propagate_error(error, g_steal_pointer(&scan->error));
        return NULL;
    }
    for (i = 0; i < THREADS; i++)
        g_array_append_vals(found, scan->scanners[i].found->data,
                            scan->scanners[i].found->len);
    g_array_sort(found, virCheckpointScanSort);
    virCheckpointScanJoin(found);
    return g_steal_pointer(&found);
}

static int
virCheckpointScanMarked(void *data, int *error)
{
    gint *failed = data;

    if (*error)
        *failed = *error;
    return 1;
}

gboolean
virCheckpointScanMark(virCheckpointScan *scan, GArray *ranges, GError **error)
{
    virCheckpointNbd *nbd = scan->marks;
    nbd_completion_callback done = {.callback = virCheckpointScanMarked};
    gint failed = 0;
    guint i;

    done.user_data = &failed;
    for (i = 0; i < ranges->len; i++) {
        virCheckpointRange range = g_array_index(ranges, virCheckpointRange, i);

        while (range.length > 0) {
            guint64 length = MIN(range.length, MARK_BYTES);

            while (nbd_aio_in_flight(nbd) >= MARK_IN_FLIGHT) {
                if (nbd_poll(nbd, -1) < 0)
                    return virCheckpointNbdFail(error);
            }
            if (nbd_aio_zero(nbd, length, range.offset, done, 0) < 0)
                return virCheckpointNbdFail(error);
            range.offset += length;
            range.length -= length;
        }
    }
    while (nbd_aio_in_flight(nbd) > 0) {
        if (nbd_poll(nbd, -1) < 0)
            return virCheckpointNbdFail(error);
    }
    if (!failed)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "marking what differs: %s", g_strerror(failed));
    return FALSE;
}
