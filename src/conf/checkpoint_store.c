/*
 * checkpoint_store.c: crash-safe records, one folder per domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The store is a directory tree of small files; the header has its layout.  Each write
 * replaces one whole file and is durable when it returns, so after a crash every record
 * is the old one or the new one.  No write touches two files that must agree: what
 * belongs together is in one record, and the order between records, QEMU and sidecars
 * is the engine's, written down in the records' states.
 *
 * Who holds a domain's lock may write to its folder; readers need no lock.  The lock is
 * a file in the folder, so it also excludes other hosts on a shared root.  An empty
 * folder goes away with its lock, which virCheckpointFileLock is prepared for.
 *
 * Nothing is removed on suspicion: as long as one record cannot be read, no sidecar is
 * taken for unused, because that record may name it.
 */

#include "config.h"

#include "checkpoint_store.h"

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_recordpriv.h"
#include "checkpoint_resume_record.h"
#include "checkpoint_storepriv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIR_CHECKPOINT_STORE_MARKER "virtcheckpoint-store"
#define VIR_CHECKPOINT_STORE_VERSION "virtcheckpoint-store 1\n"

#define VIR_CHECKPOINT_STORE_LOCK_TRIES 1000
/** For the lock of a daemon that ended just now. */
#define PATIENCE_MS 1000

struct virCheckpointStore {
    gchar *root;
    int hostFd;          /* holds the host's lock, or -1 */
    gboolean refused;    /* another daemon had it */
    gint ready;          /* atomic: the root was found to be one, of our version */
    gint reserveGone;    /* atomic: it was given and is to be made again */
    GMutex lock;         /* guards @folders; a folder's own lock may be taken inside */
    GHashTable *folders; /* uuid -> virCheckpointStoreFolder, kept until the end */
};

struct virCheckpointStoreDomain {
    virCheckpointStore *store;
    gchar *uuid;
    gchar *path;
    virCheckpointStoreFolder *folder; /* borrowed from the store */
    int lockFd;
    gboolean durable; /* the folder's own name was synced */
    gchar *unread;    /* of the last list: why a record is not in it, or NULL */
};

static gboolean
virCheckpointStoreFail(GError **error, const gchar *verb, const gchar *path)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "%s '%s': %s",
                verb, path, g_strerror(errno));
    return FALSE;
}

/* The root */

/* A new root gets its marker; an old one must be of a version that we know. */
static gboolean
virCheckpointStoreCheckMarker(const gchar *root, GError **error)
{
    g_autofree gchar *path = g_build_filename(root, VIR_CHECKPOINT_STORE_MARKER, NULL);
    g_autofree gchar *text = NULL;

    if (access(path, F_OK) < 0 && errno == ENOENT)
        return virCheckpointFileWrite(path, VIR_CHECKPOINT_STORE_VERSION, error);
    text = virCheckpointFileRead(path, 4096, error);
    if (!text)
        return FALSE;
    if (!g_str_equal(text, VIR_CHECKPOINT_STORE_VERSION)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "store '%s' is of a version that this program does not know", root);
        return FALSE;
    }
    return TRUE;
}

virCheckpointStore *
virCheckpointStoreNew(const gchar *root)
{
    virCheckpointStore *store = NULL;

    g_assert(root && g_path_is_absolute(root));

    store = g_new0(virCheckpointStore, 1);
    store->root = g_strdup(root);
    store->hostFd = -1;
    g_mutex_init(&store->lock);
    store->folders = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, (GDestroyNotify)virCheckpointStoreFolderFree);
    return store;
}

gboolean
virCheckpointStoreReady(virCheckpointStore *store, GError **error)
{
    g_autoptr(GMutexLocker) locker = NULL;

    if (g_atomic_int_get(&store->ready))
        return TRUE;
    locker = g_mutex_locker_new(&store->lock);
    if (!virCheckpointFileMakeDirs(store->root, 0700, error) ||
        !virCheckpointStoreCheckMarker(store->root, error)) {
        g_prefix_error(error, "open store '%s': ", store->root);
        return FALSE;
    }
    g_atomic_int_set(&store->reserveGone, !virCheckpointReserveMake(store->root));
    g_atomic_int_set(&store->ready, TRUE);
    return TRUE;
}

virCheckpointStore *
virCheckpointStoreOpen(const gchar *root, GError **error)
{
    g_autoptr(virCheckpointStore) store = virCheckpointStoreNew(root);

    return virCheckpointStoreReady(store, error) ? g_steal_pointer(&store) : NULL;
}

void
virCheckpointStoreFree(virCheckpointStore *store)
{
    if (!store)
        return;
    virCheckpointFdCleanup(&store->hostFd);
    g_hash_table_unref(store->folders);
    g_mutex_clear(&store->lock);
    g_free(store->root);
    g_free(store);
}

const gchar *
virCheckpointStoreRoot(virCheckpointStore *store)
{
    return store->root;
}

gboolean
virCheckpointStoreLockHost(virCheckpointStore *store, const gchar *key, GError **error)
{
    g_autofree gchar *escaped = g_uri_escape_string(key, NULL, FALSE);
    g_autofree gchar *name = g_strconcat("host-", escaped, ".lock", NULL);
    g_autofree gchar *path = g_build_filename(store->root, name, NULL);
    g_autoptr(GError) local = NULL;

    g_assert(store->hostFd < 0);

    if (!virCheckpointStoreReady(store, error))
        return FALSE;
    /* Once: beside another daemon each operation asks again. */
    store->hostFd =
        virCheckpointFileLockSoon(path, store->refused ? 0 : PATIENCE_MS, &local);
    if (store->hostFd >= 0)
        return TRUE;
    store->refused = TRUE;
    if (g_error_matches(local, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY))
        g_prefix_error(
            &local, "another instance runs for this host on store '%s': ", store->root);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* Returns: (transfer full): @uuid in lower case, or NULL if it is none. */
static gchar *
virCheckpointStoreCheckUuid(const gchar *uuid, GError **error)
{
    if (uuid && g_uuid_string_is_valid(uuid))
        return g_ascii_strdown(uuid, -1);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                "malformed uuid of a domain");
    return NULL;
}

GPtrArray *
virCheckpointStoreListDomains(virCheckpointStore *store, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(GDir) dir = NULL;
    GPtrArray *uuids = NULL;
    const gchar *name = NULL;

    if (!virCheckpointStoreReady(store, error))
        return NULL;
    if (!(dir = g_dir_open(store->root, 0, &local))) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "read store '%s': %s", store->root, local->message);
        return NULL;
    }
    uuids = g_ptr_array_new_with_free_func(g_free);
    while ((name = g_dir_read_name(dir))) {
        g_autofree gchar *uuid = virCheckpointStoreCheckUuid(name, NULL);
        g_autofree gchar *path = g_build_filename(store->root, name, NULL);

        if (g_strcmp0(uuid, name) == 0 && g_file_test(path, G_FILE_TEST_IS_DIR))
            g_ptr_array_add(uuids, g_steal_pointer(&uuid));
    }
    return uuids;
}

GPtrArray *
virCheckpointStoreListLocks(virCheckpointStore *store)
{
    g_autoptr(GPtrArray) uuids = virCheckpointStoreListDomains(store, NULL);
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; uuids && i < uuids->len; i++)
        g_ptr_array_add(paths,
                        g_build_filename(store->root, g_ptr_array_index(uuids, i),
                                         VIR_CHECKPOINT_STORE_LOCK, NULL));
    return paths;
}

static virCheckpointStoreFolder *
virCheckpointStoreFolderOf(virCheckpointStore *store, const gchar *uuid)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&store->lock);
    virCheckpointStoreFolder *folder = g_hash_table_lookup(store->folders, uuid);

    if (!folder) {
        g_autofree gchar *path = g_build_filename(store->root, uuid, NULL);

        folder = virCheckpointStoreFolderNew(path);
        g_hash_table_insert(store->folders, g_strdup(uuid), folder);
    }
    return folder;
}

GPtrArray *
virCheckpointStorePeek(virCheckpointStore *store, const gchar *uuid, GError **error)
{
    g_autofree gchar *name = virCheckpointStoreCheckUuid(uuid, error);
    virCheckpointStoreLook look = {0};

    if (!name || !virCheckpointStoreReady(store, error))
        return NULL;
    if (!virCheckpointStoreFolderLook(virCheckpointStoreFolderOf(store, name),
                                      VIR_CHECKPOINT_STORE_LOOK_RECORDS, &look, error))
        return NULL;
    return look.records;
}

GPtrArray *
virCheckpointStorePeekJobs(virCheckpointStore *store, const gchar *uuid, GError **error)
{
    g_autofree gchar *name = virCheckpointStoreCheckUuid(uuid, error);
    virCheckpointStoreLook look = {0};

    if (!name || !virCheckpointStoreReady(store, error))
        return NULL;
    if (!virCheckpointStoreFolderLook(virCheckpointStoreFolderOf(store, name),
                                      VIR_CHECKPOINT_STORE_LOOK_JOBS, &look, error))
        return NULL;
    return look.jobs;
}

GPtrArray *
virCheckpointStorePeekShared(virCheckpointStore *store,
                             const gchar *uuid,
                             GError **error)
{
    g_autofree gchar *name = virCheckpointStoreCheckUuid(uuid, error);
    virCheckpointStoreLook look = {0};

    if (!name || !virCheckpointStoreReady(store, error) ||
        !virCheckpointStoreFolderLook(virCheckpointStoreFolderOf(store, name),
                                      VIR_CHECKPOINT_STORE_LOOK_RECORDS |
                                          VIR_CHECKPOINT_STORE_LOOK_SHARED,
                                      &look, error))
        return NULL;
    return look.records;
}

gboolean
virCheckpointStorePeekOne(virCheckpointStore *store,
                          const gchar *uuid,
                          const gchar *name,
                          virCheckpointRecord **record,
                          gboolean *unready,
                          GError **error)
{
    g_autofree gchar *folder = virCheckpointStoreCheckUuid(uuid, error);

    return folder && virCheckpointStoreReady(store, error) &&
           virCheckpointStoreFolderFind(virCheckpointStoreFolderOf(store, folder), name,
                                        record, unready, error);
}

/* One domain's folder */

/* Returns: the descriptor of the lock; the folder exists then. */
static int
virCheckpointStoreDomainLock(const gchar *path, GError **error)
{
    g_autofree gchar *lock = g_build_filename(path, VIR_CHECKPOINT_STORE_LOCK, NULL);
    guint tries;

    for (tries = 1;; tries++) {
        g_autoptr(GError) local = NULL;
        int fd = -1;

        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
            virCheckpointStoreFail(error, "make directory", path);
            return -1;
        }
        fd = virCheckpointFileLock(lock, TRUE, &local);
        if (fd >= 0)
            return fd;
        /* Mostly the previous holder has removed the folder: make it again. */
        if (tries == VIR_CHECKPOINT_STORE_LOCK_TRIES) {
            g_propagate_error(error, g_steal_pointer(&local));
            return -1;
        }
    }
}

virCheckpointStoreDomain *
virCheckpointStoreDomainOpen(virCheckpointStore *store,
                             const gchar *uuid,
                             GError **error)
{
    g_autofree gchar *name = virCheckpointStoreCheckUuid(uuid, error);
    g_autofree gchar *path = NULL;
    virCheckpointStoreDomain *domain = NULL;
    int fd = -1;

    if (!name || !virCheckpointStoreReady(store, error))
        return NULL;
    path = g_build_filename(store->root, name, NULL);
    fd = virCheckpointStoreDomainLock(path, error);
    if (fd < 0)
        return NULL;

    domain = g_new0(virCheckpointStoreDomain, 1);
    domain->store = store;
    domain->folder = virCheckpointStoreFolderOf(store, name);
    domain->uuid = g_steal_pointer(&name);
    domain->path = g_steal_pointer(&path);
    domain->lockFd = fd;
    virCheckpointStoreFolderTake(domain->folder, fd);
    return domain;
}

/* TRUE if the folder holds nothing that is of use by itself. */
static gboolean
virCheckpointStoreDomainIsEmpty(virCheckpointStoreDomain *domain)
{
    g_autoptr(GDir) dir = g_dir_open(domain->path, 0, NULL);
    const gchar *name = NULL;

    while (dir && (name = g_dir_read_name(dir))) {
        if (!g_str_equal(name, VIR_CHECKPOINT_STORE_LOCK) &&
            !g_str_equal(name, VIR_CHECKPOINT_STORE_HOST) &&
            !g_str_equal(name, VIR_CHECKPOINT_STORE_JOURNAL))
            return FALSE;
    }
    return dir != NULL;
}

void
virCheckpointStoreDomainClose(virCheckpointStoreDomain *domain)
{
    if (!domain)
        return;
    /* Without its file the lock is the next one's, in another thread maybe. */
    virCheckpointStoreFolderGive(domain->folder);
    if (virCheckpointStoreDomainIsEmpty(domain)) {
        g_autofree gchar *journal =
            g_build_filename(domain->path, VIR_CHECKPOINT_STORE_JOURNAL, NULL);
        g_autofree gchar *lock =
            g_build_filename(domain->path, VIR_CHECKPOINT_STORE_LOCK, NULL);
        g_autofree gchar *host =
            g_build_filename(domain->path, VIR_CHECKPOINT_STORE_HOST, NULL);

        /* The lock last: until then nobody else is in here.  Who makes a new one
         * before rmdir makes that fail, and keeps the folder. */
        if ((unlink(host) < 0 && errno != ENOENT) ||
            (unlink(journal) < 0 && errno != ENOENT) || unlink(lock) < 0 ||
            (rmdir(domain->path) < 0 && errno != ENOTEMPTY && errno != ENOENT))
            g_debug("remove '%s': %s", domain->path, g_strerror(errno));
    }
    virCheckpointFdCleanup(&domain->lockFd);
    if (g_atomic_int_compare_and_exchange(&domain->store->reserveGone, TRUE, FALSE) &&
        !virCheckpointReserveMake(domain->store->root))
        g_atomic_int_set(&domain->store->reserveGone, TRUE);
    g_free(domain->unread);
    g_free(domain->uuid);
    g_free(domain->path);
    g_free(domain);
}

int
virCheckpointStoreDomainLockFd(virCheckpointStoreDomain *domain)
{
    return domain->lockFd;
}

const gchar *
virCheckpointStoreDomainUuid(virCheckpointStoreDomain *domain)
{
    return domain->uuid;
}

virCheckpointStoreFolder *
virCheckpointStoreDomainFolder(virCheckpointStoreDomain *domain)
{
    return domain->folder;
}

gchar *
virCheckpointStoreDomainPath(virCheckpointStoreDomain *domain,
                             const gchar *name,
                             GError **error)
{
    g_assert(*name && *name != '.' && !strchr(name, '/'));

    if (!domain->durable) {
        g_autofree gchar *journal =
            g_build_filename(domain->path, VIR_CHECKPOINT_STORE_JOURNAL, NULL);

        /* The folder was made with its lock; its name becomes durable with the first
         * file that matters: where there is a journal that has been. */
        if (access(journal, F_OK) < 0 && !virCheckpointFileSync(domain->path, error))
            return NULL;
        domain->durable = TRUE;
    }
    return g_build_filename(domain->path, name, NULL);
}

/* Records and jobs */

/* Returns: (transfer full): path of the file of @id. */
static gchar *
virCheckpointStoreFile(virCheckpointStoreDomain *domain,
                       const gchar *id,
                       const gchar *suffix,
                       GError **error)
{
    g_autofree gchar *name = g_strconcat(id, suffix, NULL);

    if (!virCheckpointRecordIdIsGood(id)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "malformed id of a record");
        return NULL;
    }
    return virCheckpointStoreDomainPath(domain, name, error);
}

/* A write that replaces a record may have the reserve: somebody depends on it, and it
 * takes no room when it is done. */
static gboolean
virCheckpointStoreReplace(virCheckpointStoreDomain *domain,
                          const gchar *path,
                          const gchar *text,
                          GError **error)
{
    gboolean replaces = access(path, F_OK) == 0;
    g_autoptr(GError) failed = NULL;

    if (virCheckpointFileWrite(path, text, &failed))
        return TRUE;
    if (!replaces || !virCheckpointReserveGive(domain->store->root, failed)) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    g_atomic_int_set(&domain->store->reserveGone, TRUE);
    return virCheckpointFileWrite(path, text, error);
}

/* @text was parsed back already: what is written can be read. */
static gboolean
virCheckpointStoreWrite(virCheckpointStoreDomain *domain,
                        const gchar *id,
                        const gchar *suffix,
                        const gchar *text,
                        GError **error)
{
    g_autofree gchar *path = virCheckpointStoreFile(domain, id, suffix, error);

    virCheckpointStoreFolderBegin(domain->folder);
    return path && virCheckpointFaultPoint("save/before-write", error) &&
           virCheckpointStoreReplace(domain, path, text, error) &&
           virCheckpointFaultPoint("save/after-write", error);
}

static gboolean
virCheckpointStoreUnlink(virCheckpointStoreDomain *domain,
                         const gchar *id,
                         const gchar *suffix,
                         GError **error)
{
    g_autofree gchar *path = virCheckpointStoreFile(domain, id, suffix, error);

    virCheckpointStoreFolderBegin(domain->folder);
    return path && virCheckpointFaultPoint("remove/before-unlink", error) &&
           virCheckpointFileRemove(path, error) &&
           virCheckpointFaultPoint("remove/after-unlink", error);
}

static GPtrArray *
virCheckpointStoreListAs(virCheckpointStoreDomain *domain, guint flags, GError **error)
{
    virCheckpointStoreLook look = {0};

    if (!virCheckpointStoreFolderLook(domain->folder,
                                      VIR_CHECKPOINT_STORE_LOOK_RECORDS |
                                          VIR_CHECKPOINT_STORE_LOOK_UNREAD | flags,
                                      &look, error))
        return NULL;
    g_free(domain->unread);
    domain->unread = look.unread;
    return look.records;
}

GPtrArray *
virCheckpointStoreList(virCheckpointStoreDomain *domain, GError **error)
{
    return virCheckpointStoreListAs(domain, 0, error);
}

GPtrArray *
virCheckpointStoreShare(virCheckpointStoreDomain *domain, GError **error)
{
    return virCheckpointStoreListAs(domain, VIR_CHECKPOINT_STORE_LOOK_SHARED, error);
}

const gchar *
virCheckpointStoreUnread(virCheckpointStoreDomain *domain)
{
    return domain->unread;
}

gboolean
virCheckpointStoreSave(virCheckpointStoreDomain *domain,
                       const virCheckpointRecord *record,
                       GError **error)
{
    g_autofree gchar *text = virCheckpointRecordFormat(record);
    g_autofree gchar *file =
        g_strconcat(record->id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    g_autoptr(virCheckpointRecord) check = virCheckpointRecordParse(text, error);
    gboolean good = FALSE;

    if (virCheckpointRecordIsShared(record))
        g_critical("record '%s' was changed under others", record->def->name);
    good = check &&
           virCheckpointStoreWrite(domain, record->id,
                                   VIR_CHECKPOINT_STORE_RECORD_SUFFIX, text, error);

    virCheckpointStoreFolderChanged(domain->folder, file, check, good);
    if (!good)
        g_prefix_error(error, "record checkpoint '%s': ", record->def->name);
    return good;
}

gboolean
virCheckpointStoreRemove(virCheckpointStoreDomain *domain,
                         const gchar *id,
                         GError **error)
{
    g_autofree gchar *file = g_strconcat(id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    gboolean good =
        virCheckpointStoreUnlink(domain, id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, error);

    virCheckpointStoreFolderChanged(domain->folder, file, NULL, good);
    return good;
}

GPtrArray *
virCheckpointStoreListJobs(virCheckpointStoreDomain *domain, GError **error)
{
    virCheckpointStoreLook look = {0};

    if (!virCheckpointStoreFolderLook(domain->folder, VIR_CHECKPOINT_STORE_LOOK_JOBS,
                                      &look, error))
        return NULL;
    return look.jobs;
}

gboolean
virCheckpointStoreSaveJob(virCheckpointStoreDomain *domain,
                          const virCheckpointJobRecord *job,
                          GError **error)
{
    g_autofree gchar *text = virCheckpointJobRecordFormat(job);
    g_autofree gchar *file =
        g_strconcat(job->id, VIR_CHECKPOINT_STORE_JOB_SUFFIX, NULL);
    g_autoptr(virCheckpointJobRecord) check = virCheckpointJobRecordParse(text, error);

    virCheckpointStoreFolderForget(domain->folder, file);
    if (!check || !virCheckpointStoreWrite(
                      domain, job->id, VIR_CHECKPOINT_STORE_JOB_SUFFIX, text, error)) {
        g_prefix_error(error, "record job of disk '%s': ", job->target);
        return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointStoreRemoveJob(virCheckpointStoreDomain *domain,
                            const gchar *id,
                            GError **error)
{
    g_autofree gchar *file = g_strconcat(id, VIR_CHECKPOINT_STORE_JOB_SUFFIX, NULL);

    virCheckpointStoreFolderForget(domain->folder, file);
    return virCheckpointStoreUnlink(domain, id, VIR_CHECKPOINT_STORE_JOB_SUFFIX, error);
}

GPtrArray *
virCheckpointStoreBadFiles(virCheckpointStoreDomain *domain)
{
    virCheckpointStoreLook look = {0};
    g_autoptr(GError) error = NULL;

    if (!virCheckpointStoreFolderLook(domain->folder, VIR_CHECKPOINT_STORE_LOOK_BAD,
                                      &look, &error)) {
        /* Of a folder that cannot be read nothing can be. */
        g_warning("%s", error->message);
        look.bad = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(look.bad, g_strdup("."));
    }
    return look.bad;
}

/* The journal: names of bitmaps, one a line, only ever appended to */

/* The end of what a crash cut short gets its line end, so that the next name is whole.
 */
static gboolean
virCheckpointStoreJournalAppend(int fd, const gchar *text, gsize length)
{
    struct stat sb;
    gchar last = '\n';
    gsize done = 0;

    if (fstat(fd, &sb) < 0)
        return FALSE;
    if (sb.st_size > 0 && pread(fd, &last, 1, sb.st_size - 1) != 1)
        return FALSE;
    if (last != '\n' && write(fd, "\n", 1) != 1)
        return FALSE;
    while (done < length) {
        ssize_t put = write(fd, text + done, length - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return FALSE;
        done += (gsize)put;
    }
    return fdatasync(fd) == 0;
}

gboolean
virCheckpointStoreJournalAdd(virCheckpointStoreDomain *domain,
                             const gchar *const *bitmaps,
                             GError **error)
{
    g_autofree gchar *path =
        virCheckpointStoreDomainPath(domain, VIR_CHECKPOINT_STORE_JOURNAL, error);
    g_autoptr(GString) lines = g_string_new(NULL);
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    gboolean created = FALSE;
    gsize i;

    if (!path || !virCheckpointFaultPoint("journal/before-append", error))
        return FALSE;
    for (i = 0; bitmaps[i]; i++) {
        g_assert(*bitmaps[i] && !strchr(bitmaps[i], '\n'));
        g_string_append_printf(lines, "%s\n", bitmaps[i]);
    }
    created = access(path, F_OK) < 0;
    fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || !virCheckpointStoreJournalAppend(fd, lines->str, lines->len))
        return virCheckpointStoreFail(error, "append to", path);
    if (created && !virCheckpointFileSync(path, error))
        return FALSE;
    return virCheckpointFaultPoint("journal/after-append", error);
}

gboolean
virCheckpointStoreJournalHas(virCheckpointStoreDomain *domain, const gchar *bitmap)
{
    g_autofree gchar *path =
        g_build_filename(domain->path, VIR_CHECKPOINT_STORE_JOURNAL, NULL);

    return virCheckpointStoreFolderJournalHas(domain->folder, path, bitmap);
}

/* Leftovers */

/* TRUE if a write of ours that did not end left this: *.tmp, or NAME.XXXXXX of GLib. */
static gboolean
virCheckpointStoreIsTemporary(const gchar *name)
{
    const gchar *dot = strrchr(name, '.');
    const gchar *p = NULL;

    if (g_str_has_suffix(name, ".tmp"))
        return TRUE;
    if (!dot || strlen(dot) != 7 || dot - name < 4 || strncmp(dot - 4, ".xml", 4) != 0)
        return FALSE;
    for (p = dot + 1; *p && g_ascii_isalnum(*p);)
        p++;
    return !*p;
}

/* Returns: (transfer full): names of sidecars that records use, as a set; NULL if that
 * cannot be known. */
static GHashTable *
virCheckpointStoreUsedSidecars(virCheckpointStoreDomain *domain, GError **error)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreShare(domain, error);
    g_autoptr(GPtrArray) bad = virCheckpointStoreBadFiles(domain);
    GHashTable *used = NULL;
    guint i;
    guint j;
    guint k;

    if (!records || bad->len > 0)
        return NULL;
    used = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);

        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);

            for (k = 0; k < segment->sidecars->len; k++)
                g_hash_table_add(used,
                                 g_strdup(g_ptr_array_index(segment->sidecars, k)));
        }
    }
    if (!virCheckpointStoreSiftResumes(domain, records, used, error))
        g_clear_pointer(&used, g_hash_table_unref);
    return used;
}

/* Returns: (transfer full): names in the folder, so that it can change meanwhile. */
static GPtrArray *
virCheckpointStoreNames(virCheckpointStoreDomain *domain, GError **error)
{
    g_autoptr(GDir) dir = NULL;
    g_autoptr(GError) local = NULL;
    GPtrArray *names = NULL;
    const gchar *name = NULL;

    dir = g_dir_open(domain->path, 0, &local);
    if (!dir) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "read '%s': %s", domain->path, local->message);
        return NULL;
    }
    names = g_ptr_array_new_with_free_func(g_free);
    while ((name = g_dir_read_name(dir)))
        g_ptr_array_add(names, g_strdup(name));
    return names;
}

void
virCheckpointStoreLookAgain(virCheckpointStoreDomain *domain)
{
    virCheckpointStoreFolderForget(domain->folder, NULL);
}

void
virCheckpointStoreTouched(virCheckpointStoreDomain *domain)
{
    virCheckpointStoreFolderTouched(domain->folder);
}

gboolean
virCheckpointStoreCollect(virCheckpointStoreDomain *domain, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(GHashTable) used = virCheckpointStoreUsedSidecars(domain, &local);
    g_autoptr(GPtrArray) names = virCheckpointStoreNames(domain, error);
    guint i;

    if (local) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    if (!names)
        return FALSE;
    for (i = 0; i < names->len; i++) {
        const gchar *name = g_ptr_array_index(names, i);
        gboolean unused = used && g_str_has_suffix(name, ".qcow2") &&
                          !g_hash_table_contains(used, name);
        g_autofree gchar *path = NULL;

        if (!unused && !virCheckpointStoreIsTemporary(name))
            continue;
        path = g_build_filename(domain->path, name, NULL);
        if (!virCheckpointFaultPoint("collect/before-unlink", error) ||
            !virCheckpointFileRemove(path, error) ||
            !virCheckpointFaultPoint("collect/after-unlink", error))
            return FALSE;
        virCheckpointStoreFolderTouched(domain->folder);
        g_info("domain=%s removed leftover '%s'", domain->uuid, name);
    }
    return TRUE;
}

/* When a file is to go that @name is, of all the folder's. */
static guint
virCheckpointStoreDropPass(const gchar *name)
{
    if (g_str_has_suffix(name, ".xml"))
        return 0;
    return g_str_equal(name, VIR_CHECKPOINT_STORE_LEAVING) ? 2 : 1;
}

gboolean
virCheckpointStoreCollectOf(virCheckpointStoreDomain *domain,
                            GPtrArray *names,
                            GError **error)
{
    g_autoptr(GPtrArray) resumes = virCheckpointStoreListResumes(domain);
    g_autoptr(GPtrArray) bad = NULL;
    guint i;

    /* What a copy left may have been made for that checkpoint. */
    if (resumes->len > 0)
        return virCheckpointStoreCollect(domain, error);
    if (names->len == 0)
        return TRUE;
    bad = virCheckpointStoreBadFiles(domain);
    for (i = 0; bad->len == 0 && i < names->len; i++) {
        g_autofree gchar *path =
            g_build_filename(domain->path, g_ptr_array_index(names, i), NULL);

        if (!virCheckpointFaultPoint("collect/before-unlink", error) ||
            !virCheckpointFileRemove(path, error) ||
            !virCheckpointFaultPoint("collect/after-unlink", error))
            return FALSE;
        virCheckpointStoreFolderTouched(domain->folder);
    }
    return TRUE;
}

gboolean
virCheckpointStoreDrop(virCheckpointStoreDomain *domain, GError **error)
{
    g_autoptr(GPtrArray) names = virCheckpointStoreNames(domain, error);
    guint pass;
    guint i;

    virCheckpointStoreFolderBegin(domain->folder);
    virCheckpointStoreFolderForget(domain->folder, NULL);
    if (!names)
        return FALSE;
    /* Records first: a crash in between leaves sidecars without a record, which are
     * collected, never records without their sidecars.  The mark last: as long as it is
     * there somebody will finish this. */
    for (pass = 0; pass < 3; pass++) {
        for (i = 0; i < names->len; i++) {
            const gchar *name = g_ptr_array_index(names, i);
            g_autofree gchar *path = g_build_filename(domain->path, name, NULL);

            if (g_str_equal(name, VIR_CHECKPOINT_STORE_LOCK) ||
                virCheckpointStoreDropPass(name) != pass)
                continue;
            if (rmdir(path) == 0)
                continue;
            if (!virCheckpointFaultPoint("drop/before-unlink", error) ||
                !virCheckpointFileRemove(path, error) ||
                !virCheckpointFaultPoint("drop/after-unlink", error))
                return FALSE;
        }
    }
    return TRUE;
}
