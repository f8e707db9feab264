/*
 * checkpoint_storage_source.c: where the bytes of a <source> are
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: files, block devices and NBD are known in detail, because headers and the
 * caller's look at the world concern them.  Every other source is QEMU's options for
 * its driver, as libvirt writes them for a guest (src/qemu/qemu_block.c of 9.0), and no
 * more is known of it.  What a guest could not write to is refused as the top of a
 * chain; what cannot hold a bitmap at all (a folder shown as FAT, vhost-user) always.
 *
 * Passwords stay out of the options: QEMU gets them as an object that is read from a
 * descriptor (checkpoint_storage_argv.c).
 */

#include "config.h"

#include <string.h>

#include "checkpoint_storage_argvpriv.h"
#include "checkpoint_xml.h"

/** Protocols by libvirt's name; the port that it assumes. */
typedef struct virCheckpointStorageNet {
    const gchar *protocol;
    const gchar *port;
    gboolean readOnly; /* QEMU cannot write there */
    gboolean (*parse)(virCheckpointStorageLayer *layer,
                      xmlNode *source,
                      const gchar *name,
                      GError **error);
} virCheckpointStorageNet;

static const virCheckpointStorageNet *
virCheckpointStorageFindNet(const gchar *protocol);

static gchar *
virCheckpointStoragePort(xmlNode *host, const gchar *protocol)
{
    gchar *port = virCheckpointXmlString(host, "string(./@port)");

    return port ? port : g_strdup(virCheckpointStorageFindNet(protocol)->port);
}

/* All <host>s; @typed: with QEMU's "type" member, Unix sockets allowed. */
static virCheckpointJson *
virCheckpointStorageServers(xmlNode *source, const gchar *protocol, gboolean typed)
{
    g_autoptr(GPtrArray) hosts = virCheckpointXmlNodes(source, "./host");
    virCheckpointJson *servers = virCheckpointJsonNewArray();
    guint i;

    for (i = 0; i < hosts->len; i++) {
        xmlNode *host = g_ptr_array_index(hosts, i);
        g_autofree gchar *name = virCheckpointXmlString(host, "string(./@name)");
        g_autofree gchar *path = virCheckpointXmlString(host, "string(./@socket)");
        g_autofree gchar *port = virCheckpointStoragePort(host, protocol);

        if (typed && path)
            virCheckpointJsonAppend(
                servers,
                virCheckpointJsonBuild("s:type", "unix", "s:path", path, NULL));
        else
            virCheckpointJsonAppend(
                servers, virCheckpointJsonBuild("s:type", typed ? "inet" : NULL,
                                                "s:host", name, "s:port", port, NULL));
    }
    return servers;
}

/* "VOLUME/PATH" at the first slash. */
static gboolean
virCheckpointStorageSplit(const gchar *name,
                          gchar **volume,
                          gchar **path,
                          GError **error)
{
    const gchar *slash = strchr(name, '/');

    if (!slash || slash == name || !slash[1])
        return virCheckpointStorageUnsupported(error, "a source named '%s'", name);
    *volume = g_strndup(name, (gsize)(slash - name));
    *path = g_strdup(slash + 1);
    return TRUE;
}

/* <auth>; @option: the member of the options that names QEMU's secret. */
static gboolean
virCheckpointStorageParseAuth(virCheckpointStorageLayer *layer,
                              xmlNode *source,
                              const gchar *option,
                              GError **error)
{
    xmlNode *auth = virCheckpointXmlNode(source, "./auth");
    g_autofree gchar *user = NULL;

    /* Older libvirt wrote it beside the source. */
    if (!auth && !(auth = virCheckpointXmlNode(source, "../auth")))
        return TRUE;
    user = virCheckpointXmlString(auth, "string(./@username)");
    layer->auth.uuid = virCheckpointXmlString(auth, "string(./secret/@uuid)");
    layer->auth.usage = virCheckpointXmlString(auth, "string(./secret/@usage)");
    if (!user || (!layer->auth.uuid && !layer->auth.usage))
        return virCheckpointStorageUnsupported(error, "a login without a secret");
    layer->authOption = option;
    virCheckpointJsonAddString(layer->options, "user", user);
    return TRUE;
}

static gboolean
virCheckpointStorageParseRbd(virCheckpointStorageLayer *layer,
                             xmlNode *source,
                             const gchar *name,
                             GError **error)
{
    g_autofree gchar *pool = NULL;
    g_autofree gchar *image = NULL;
    g_autofree gchar *snapshot =
        virCheckpointXmlString(source, "string(./snapshot/@name)");
    g_autofree gchar *config = virCheckpointXmlString(source, "string(./config/@file)");
    virCheckpointJson *servers;

    if (!virCheckpointStorageSplit(name, &pool, &image, error))
        return FALSE;
    layer->options =
        virCheckpointJsonBuild("s:driver", "rbd", "s:pool", pool, "s:image", image,
                               "s:snapshot", snapshot, "s:conf", config, NULL);
    servers = virCheckpointStorageServers(source, "rbd", FALSE);
    if (virCheckpointJsonLength(servers) > 0)
        virCheckpointJsonAdd(layer->options, "server", servers);
    else
        virCheckpointJsonFree(servers);
    if (!virCheckpointStorageParseAuth(layer, source, "key-secret", error))
        return FALSE;
    if (layer->authOption)
        virCheckpointJsonAdd(layer->options, "auth-client-required",
                             virCheckpointJsonParse("[\"cephx\",\"none\"]", -1, NULL));
    return TRUE;
}

static gboolean
virCheckpointStorageParseIscsi(virCheckpointStorageLayer *layer,
                               xmlNode *source,
                               const gchar *name,
                               GError **error)
{
    g_autofree gchar *initiator =
        virCheckpointXmlString(source, "string(./initiator/iqn/@name)");
    g_autofree gchar *host = virCheckpointXmlString(source, "string(./host/@name)");
    g_autofree gchar *transport =
        virCheckpointXmlString(source, "string(./host/@transport)");
    g_autofree gchar *target = g_strdup(name);
    g_autofree gchar *port = NULL;
    g_autofree gchar *portal = NULL;
    gchar *slash = strchr(target, '/');
    guint64 lun = 0;

    if (slash) {
        *slash = '\0';
        if (!g_ascii_string_to_unsigned(slash + 1, 10, 0, G_MAXUINT, &lun, NULL))
            return virCheckpointStorageUnsupported(error, "a source named '%s'", name);
    }
    if (!host)
        return virCheckpointStorageUnsupported(error, "an iSCSI source without a host");
    port = virCheckpointStoragePort(virCheckpointXmlNode(source, "./host"), "iscsi");
    portal = g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    layer->options = virCheckpointJsonBuild(
        "s:driver", "iscsi", "s:portal", portal, "s:target", target, "u:lun", lun,
        "s:transport", g_strcmp0(transport, "iser") == 0 ? "iser" : "tcp",
        "s:initiator-name", initiator, NULL);
    return virCheckpointStorageParseAuth(layer, source, "password-secret", error);
}

static gboolean
virCheckpointStorageParseGluster(virCheckpointStorageLayer *layer,
                                 xmlNode *source,
                                 const gchar *name,
                                 GError **error)
{
    g_autofree gchar *volume = NULL;
    g_autofree gchar *path = NULL;

    if (!virCheckpointStorageSplit(name, &volume, &path, error))
        return FALSE;
    layer->options = virCheckpointJsonBuild(
        "s:driver", "gluster", "s:volume", volume, "s:path", path, "a:server",
        virCheckpointStorageServers(source, "gluster", TRUE), NULL);
    return TRUE;
}

static gboolean
virCheckpointStorageParseNfs(virCheckpointStorageLayer *layer,
                             xmlNode *source,
                             const gchar *name,
                             GError **error)
{
    g_autofree gchar *host = virCheckpointXmlString(source, "string(./host/@name)");

    /* Names of users are resolved by libvirt, on the host of the guest. */
    if (!host || virCheckpointXmlNode(source, "./identity"))
        return virCheckpointStorageUnsupported(error, "an NFS source with these users");
    layer->options = virCheckpointJsonBuild(
        "s:driver", "nfs", "a:server",
        virCheckpointJsonBuild("s:type", "inet", "s:host", host, NULL), "s:path", name,
        NULL);
    return TRUE;
}

/* HTTP and FTP. */
static gboolean
virCheckpointStorageParseUrl(virCheckpointStorageLayer *layer,
                             xmlNode *source,
                             const gchar *name,
                             GError **error)
{
    g_autofree gchar *protocol = virCheckpointXmlString(source, "string(./@protocol)");
    g_autofree gchar *query = virCheckpointXmlString(source, "string(./@query)");
    g_autofree gchar *host = virCheckpointXmlString(source, "string(./host/@name)");
    g_autofree gchar *verify = virCheckpointXmlString(source, "string(./ssl/@verify)");
    g_autofree gchar *port = NULL;
    g_autofree gchar *path = NULL;
    g_autofree gchar *url = NULL;

    if (!host || virCheckpointXmlNode(source, "./cookies") ||
        virCheckpointXmlNode(source, "./auth"))
        return virCheckpointStorageUnsupported(error, "a source with this login");
    port = virCheckpointStoragePort(virCheckpointXmlNode(source, "./host"), protocol);
    path = g_uri_escape_string(name, G_URI_RESERVED_CHARS_ALLOWED_IN_PATH, FALSE);
    url = g_strdup_printf(
        strchr(host, ':') ? "%s://[%s]:%s/%s%s%s" : "%s://%s:%s/%s%s%s", protocol, host,
        port, path, query ? "?" : "", query ? query : "");
    layer->options = virCheckpointJsonBuild("s:driver", protocol, "s:url", url, NULL);
    if (verify)
        virCheckpointJsonAddBoolean(layer->options, "sslverify",
                                    g_str_equal(verify, "yes"));
    return TRUE;
}

static gboolean
virCheckpointStorageParseNbd(virCheckpointStorageLayer *layer,
                             xmlNode *source,
                             const gchar *name,
                             GError **error)
{
    g_autofree gchar *transport =
        virCheckpointXmlString(source, "string(./host/@transport)");

    layer->type = VIR_CHECKPOINT_STORAGE_NBD;
    layer->exportName = g_strdup(name);
    layer->tls = virCheckpointXmlString(source, "string(./@tls)");
    layer->tlsHostname = virCheckpointXmlString(source, "string(./@tlsHostname)");
    if (g_strcmp0(transport, "unix") == 0) {
        layer->path = virCheckpointXmlString(source, "string(./host/@socket)");
        if (layer->path)
            return TRUE;
    } else {
        layer->host = virCheckpointXmlString(source, "string(./host/@name)");
        layer->port =
            virCheckpointStoragePort(virCheckpointXmlNode(source, "./host"), "nbd");
        if (layer->host && (!transport || g_str_equal(transport, "tcp")))
            return TRUE;
    }
    return virCheckpointStorageUnsupported(error, "an NBD source with this host");
}

static const virCheckpointStorageNet virCheckpointStorageNets[] = {
    {"nbd", "10809", FALSE, virCheckpointStorageParseNbd},
    {"rbd", "0", FALSE, virCheckpointStorageParseRbd},
    {"iscsi", "3260", FALSE, virCheckpointStorageParseIscsi},
    {"gluster", "24007", FALSE, virCheckpointStorageParseGluster},
    {"nfs", "2049", FALSE, virCheckpointStorageParseNfs},
    {"http", "80", TRUE, virCheckpointStorageParseUrl},
    {"https", "443", TRUE, virCheckpointStorageParseUrl},
    {"ftp", "21", TRUE, virCheckpointStorageParseUrl},
    {"ftps", "990", TRUE, virCheckpointStorageParseUrl},
};

static const virCheckpointStorageNet *
virCheckpointStorageFindNet(const gchar *protocol)
{
    guint i;

    for (i = 0; protocol && i < G_N_ELEMENTS(virCheckpointStorageNets); i++) {
        if (g_str_equal(virCheckpointStorageNets[i].protocol, protocol))
            return &virCheckpointStorageNets[i];
    }
    return NULL;
}

static gboolean
virCheckpointStorageParseNetwork(virCheckpointStorageLayer *layer,
                                 xmlNode *source,
                                 gboolean top,
                                 GError **error)
{
    g_autofree gchar *protocol = virCheckpointXmlString(source, "string(./@protocol)");
    g_autofree gchar *name = virCheckpointXmlString(source, "string(./@name)");
    const virCheckpointStorageNet *net = virCheckpointStorageFindNet(protocol);

    if (!net || (net->readOnly && top))
        return virCheckpointStorageUnsupported(
            error, "a source of type 'network' with protocol '%s'",
            protocol ? protocol : "");
    layer->type = VIR_CHECKPOINT_STORAGE_OPTIONS;
    layer->network = TRUE;
    if (!name && net->parse != virCheckpointStorageParseNbd)
        return virCheckpointStorageUnsupported(error, "a source without a name");
    return net->parse(layer, source, name, error);
}

/* A whole device that QEMU's own driver works, through VFIO. */
static gboolean
virCheckpointStorageParseNvme(virCheckpointStorageLayer *layer,
                              xmlNode *source,
                              GError **error)
{
    static const gchar *const parts[] = {"domain", "bus", "slot", "function"};
    g_autofree gchar *space = virCheckpointXmlString(source, "string(./@namespace)");
    g_autofree gchar *device = NULL;
    guint64 number = 0;
    guint64 value[G_N_ELEMENTS(parts)] = {0};
    guint i;

    for (i = 0; i < G_N_ELEMENTS(parts); i++) {
        g_autofree gchar *path = g_strdup_printf("string(./address/@%s)", parts[i]);
        g_autofree gchar *text = virCheckpointXmlString(source, path);

        if (text)
            value[i] = g_ascii_strtoull(text, NULL, 0);
    }
    if (!space || !g_ascii_string_to_unsigned(space, 10, 1, G_MAXUINT, &number, NULL))
        return virCheckpointStorageUnsupported(error, "an NVMe source of no namespace");
    device = g_strdup_printf("%04x:%02x:%02x.%x", (guint)value[0], (guint)value[1],
                             (guint)value[2], (guint)value[3]);
    layer->type = VIR_CHECKPOINT_STORAGE_OPTIONS;
    layer->options = virCheckpointJsonBuild("s:driver", "nvme", "s:device", device,
                                            "u:namespace", number, NULL);
    return TRUE;
}

/* A part of the file, device or export is the image. */
static gboolean
virCheckpointStorageParseSlice(virCheckpointStorageLayer *layer,
                               xmlNode *source,
                               GError **error)
{
    xmlNode *slice = virCheckpointXmlNode(source, "./slices/slice[@type='storage']");
    g_autofree gchar *offset = NULL;
    g_autofree gchar *size = NULL;

    if (!slice)
        return TRUE;
    offset = virCheckpointXmlString(slice, "string(./@offset)");
    size = virCheckpointXmlString(slice, "string(./@size)");
    layer->slice = TRUE;
    return (offset && size &&
            g_ascii_string_to_unsigned(offset, 10, 0, G_MAXINT64, &layer->sliceOffset,
                                       NULL) &&
            g_ascii_string_to_unsigned(size, 10, 1, G_MAXINT64, &layer->sliceSize,
                                       NULL)) ||
           virCheckpointStorageUnsupported(error, "a slice of an image");
}

gboolean
virCheckpointStorageParseSource(virCheckpointStorageLayer *layer,
                                xmlNode *node,
                                gboolean top,
                                GError **error)
{
    xmlNode *source = virCheckpointXmlNode(node, "./source");
    g_autofree gchar *type = virCheckpointXmlString(node, "string(./@type)");

    if (g_strcmp0(type, "file") == 0) {
        layer->path = virCheckpointXmlString(source, "string(./@file)");
    } else if (g_strcmp0(type, "block") == 0) {
        layer->type = VIR_CHECKPOINT_STORAGE_BLOCK;
        layer->path = virCheckpointXmlString(source, "string(./@dev)");
    } else if (g_strcmp0(type, "network") == 0) {
        if (!virCheckpointStorageParseNetwork(layer, source, top, error))
            return FALSE;
    } else if (g_strcmp0(type, "nvme") == 0) {
        if (!virCheckpointStorageParseNvme(layer, source, error))
            return FALSE;
    } else {
        return virCheckpointStorageUnsupported(error, "a source of type '%s'",
                                               type ? type : "");
    }
    if (!layer->path && !layer->host && !layer->options)
        return virCheckpointStorageUnsupported(error, "a source without a name");
    return virCheckpointStorageParseSlice(layer, source, error);
}
