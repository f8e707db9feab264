/*
 * checkpoint_offline_world.c: what disks of a guest that is off need of libvirt
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: passphrases are libvirt's secrets; they go to the storage daemon through
 * pipes that it inherits, never through arguments.  Volumes are looked up in libvirt's
 * pools.  On hosts with a daemon for each driver secrets and
 * pools are asked of the daemons that have them.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_domain.h"
#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_nbd_tls.h"
#include "checkpoint_offlinepriv.h"

/* Another driver's daemon, where the QEMU driver's does not have it. */
static virConnectPtr
virCheckpointOfflineConnect(const gchar *driver)
{
    g_autofree gchar *uri =
        g_strdup_printf("%s:///%s", driver, geteuid() == 0 ? "system" : "session");

    return virGetLastErrorCode() == VIR_ERR_NO_SUPPORT ? virConnectOpen(uri) : NULL;
}

/* Libvirt forgets why a call failed when something is freed: the error comes first. */
static gboolean
virCheckpointOfflineReadVolume(virStoragePoolPtr pool,
                               const gchar *volume,
                               gchar **poolXml,
                               gchar **path,
                               virStorageVolType *type,
                               GError **error)
{
    g_autofree char *xml = virStoragePoolGetXMLDesc(pool, 0);
    virStorageVolPtr found = xml ? virStorageVolLookupByName(pool, volume) : NULL;
    g_autofree char *name = found ? virStorageVolGetPath(found) : NULL;
    virStorageVolInfo info;
    gboolean done = name && virStorageVolGetInfo(found, &info) == 0;

    if (done) {
        *poolXml = g_strdup(xml);
        *path = g_strdup(name);
        *type = info.type;
    } else {
        virCheckpointDomainSetError(error);
    }
    if (found)
        virStorageVolFree(found);
    return done;
}

gboolean
virCheckpointOfflineVolume(const gchar *pool,
                           const gchar *volume,
                           gchar **poolXml,
                           gchar **path,
                           virStorageVolType *type,
                           gpointer data,
                           GError **error)
{
    virConnectPtr other = NULL;
    virStoragePoolPtr found = virStoragePoolLookupByName(data, pool);
    gboolean done = FALSE;

    if (!found && (other = virCheckpointOfflineConnect("storage")))
        found = virStoragePoolLookupByName(other, pool);
    if (found) {
        done =
            virCheckpointOfflineReadVolume(found, volume, poolXml, path, type, error);
        virStoragePoolFree(found);
    } else {
        virCheckpointDomainSetError(error);
    }
    if (other)
        virConnectClose(other);
    return done;
}

static virSecretPtr
virCheckpointOfflineFindSecret(virConnectPtr conn,
                               const gchar *uuid,
                               const gchar *usage,
                               virSecretUsageType type)
{
    if (uuid)
        return virSecretLookupByUUIDString(conn, uuid);
    return virSecretLookupByUsage(conn, type, usage);
}

/* The passphrase in base64, in a pipe whose writing end is closed. */
static gboolean
virCheckpointOfflinePipe(const guchar *value, gsize size, int *fd, GError **error)
{
    g_autofree gchar *text = g_base64_encode(value, size);
    gsize length = strlen(text);
    gssize sent;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "cannot make a pipe: %s", g_strerror(errno));
        return FALSE;
    }
    sent = write(ends[1], text, length);
    close(ends[1]);
    explicit_bzero(text, length);
    if (sent != (gssize)length) {
        close(ends[0]);
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                            "a secret is too long for a pipe");
        return FALSE;
    }
    *fd = ends[0];
    return TRUE;
}

/* Nothing to do if @secret names none. */
static gboolean
virCheckpointOfflineSecret(virConnectPtr conn,
                           const gchar *uuid,
                           const gchar *usage,
                           virSecretUsageType type,
                           gint *fd,
                           GArray *fds,
                           GError **error)
{
    virConnectPtr other = NULL;
    virSecretPtr found;
    unsigned char *value = NULL;
    gboolean done;
    size_t size = 0;

    if (!uuid && !usage)
        return TRUE;
    found = virCheckpointOfflineFindSecret(conn, uuid, usage, type);
    if (!found && (other = virCheckpointOfflineConnect("secret")))
        found = virCheckpointOfflineFindSecret(other, uuid, usage, type);
    if (found)
        value = virSecretGetValue(found, &size, 0);
    done = value ? virCheckpointOfflinePipe(value, size, fd, error)
                 : virCheckpointDomainSetError(error);
    if (value)
        explicit_bzero(value, size);
    free(value);
    if (found)
        virSecretFree(found);
    if (other)
        virConnectClose(other);
    if (done)
        g_array_append_val(fds, *fd);
    return done;
}

/* Certificates are libvirt's, in its folder; the passphrase of the key is a secret. */
static gboolean
virCheckpointOfflineCerts(virConnectPtr conn,
                          virCheckpointStorageLayer *layer,
                          GArray *fds,
                          GError **error)
{
    g_auto(virCheckpointNbdTls) tls = {0};

    if (layer->type != VIR_CHECKPOINT_STORAGE_NBD || g_strcmp0(layer->tls, "no") == 0)
        return TRUE;
    virCheckpointNbdTlsRead(&tls);
    if (g_strcmp0(layer->tls, "yes") != 0 && !tls.byDefault)
        return TRUE;
    g_free(layer->tlsDir);
    layer->tlsDir = g_steal_pointer(&tls.dir);
    return virCheckpointOfflineSecret(conn, tls.secretUuid, NULL,
                                      VIR_SECRET_USAGE_TYPE_TLS, &layer->tlsKeyFd, fds,
                                      error);
}

static gboolean
virCheckpointOfflineLayer(virConnectPtr conn,
                          virCheckpointStorageLayer *layer,
                          GArray *fds,
                          GError **error)
{
    virSecretUsageType login = VIR_SECRET_USAGE_TYPE_ISCSI;

    if (g_strcmp0(virCheckpointJsonGetString(layer->options, "driver"), "rbd") == 0)
        login = VIR_SECRET_USAGE_TYPE_CEPH;
    return (!layer->luks ||
            virCheckpointOfflineSecret(conn, layer->secretUuid, layer->secretUsage,
                                       VIR_SECRET_USAGE_TYPE_VOLUME, &layer->secretFd,
                                       fds, error)) &&
           virCheckpointOfflineSecret(conn, layer->auth.uuid, layer->auth.usage, login,
                                      &layer->auth.fd, fds, error) &&
           virCheckpointOfflineCerts(conn, layer, fds, error);
}

gboolean
virCheckpointOfflineSecrets(virConnectPtr conn,
                            virCheckpointStorageDisk *disk,
                            GArray *fds,
                            GError **error)
{
    guint i;

    for (i = 0; i < disk->layers->len; i++) {
        if (virCheckpointOfflineLayer(conn, g_ptr_array_index(disk->layers, i), fds,
                                      error))
            continue;
        if (disk->target)
            g_prefix_error(error, "disk '%s': ", disk->target);
        return FALSE;
    }
    return TRUE;
}

void
virCheckpointOfflineCloseFds(virCheckpointStorageDisk *disk)
{
    guint i;

    for (i = 0; i < disk->layers->len; i++) {
        virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, i);

        virCheckpointFdCleanup(&layer->secretFd);
        virCheckpointFdCleanup(&layer->auth.fd);
        virCheckpointFdCleanup(&layer->tlsKeyFd);
    }
}
